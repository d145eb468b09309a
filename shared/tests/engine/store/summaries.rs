use runmill_shared::store::summaries::{self, Summary};

use super::{super::*, NASTY};

#[tokio::test]
async fn a_thread_keeps_the_summaries_of_its_own_messages() {
    for w in worlds().await {
        let (a, b) = (w.started("t", "a").await, w.started("u", "b").await);
        let keep = async |upto: &str, text: &str, at| summaries::keep(&w.app.db, a.thread_id, upto, text, at).await.unwrap();
        keep("m-a", "first", START).await;
        keep("m-b", "another thread's message", START).await;
        keep("m-a", NASTY, START.after(MINUTE)).await;
        let kept = summaries::of_thread(&w.app.db, a.thread_id).await.unwrap();
        assert_eq!(kept, [Summary { upto: "m-a".into(), text: NASTY.into() }], "{}", w.name);
        assert_eq!(summaries::of_thread(&w.app.db, b.thread_id).await.unwrap(), []);
    }
}
