use runmill_shared::services::runs::execution::Doubt;
use runmill_shared::store::{
    branches::{self, Fork},
    messages::{self, Added},
    threads,
};

use super::super::*;

/// A thread that inherits what `parent` has up to the message.
async fn forked(w: &World, parent: Uuid, message: &str) -> (Uuid, Fork) {
    let mut tx = w.tx().await;
    let fork = branches::fork(&mut tx, parent, message).await.unwrap().expect("the message is there");
    let id = threads::ensure(&mut tx, new_id(), &owner(), &new_id().to_string(), true, w.app.clock.now()).await.unwrap();
    branches::inherit(&mut tx, id, parent, &fork).await.unwrap();
    tx.commit().await.unwrap();
    (id, fork)
}

/// A run of one message that has been answered.
async fn answered(w: &World, thread: &str, run: &str) -> Claimed {
    let run = w.started(thread, run).await;
    say(w, &run).await;
    w.finish(&run).await;
    run
}

async fn say(w: &World, run: &Claimed) {
    let id = format!("answer-{}", run.external_id);
    let answer = NewMessage { id, role: MessageRole::Assistant, body: MessageBody::text("hi") };
    let writes = Writes { messages: vec![answer], ..Writes::default() };
    execution::flush(&w.app, vec![Unit { run, writes }], &mut Doubt::default()).await.unwrap();
}

async fn all(w: &World, thread: Uuid) -> Vec<String> {
    let found = messages::between(&w.app.db, thread, Timestamp(0), Timestamp(i64::MAX)).await.unwrap();
    found.into_iter().map(|m| m.id).collect()
}

#[tokio::test]
async fn a_thread_inherits_up_to_the_fork_however_deep() {
    for w in worlds().await {
        let a = answered(&w, "t", "a").await;
        let first = w.started("t", "b").await;
        let queued = w.accept("t", "c").await.id;
        say(&w, &first).await;
        w.finish(&first).await;
        let last = w.claim(queued).await;
        say(&w, &last).await;
        w.finish(&last).await;
        let t = a.thread_id;

        // m-c is stored before answer-b, and comes after it.
        let (branch, fork) = forked(&w, t, "answer-b").await;
        assert_eq!((fork.thread_id, fork.depth, fork.upto_order, fork.unfinished), (t, 0, 2, false), "{}", w.name);
        let mut seen = all(&w, branch).await;
        seen.sort();
        assert_eq!(seen, ["answer-a", "answer-b", "m-a", "m-b"], "{}", w.name);
        let (at_c, _) = forked(&w, t, "m-c").await;
        assert_eq!(all(&w, at_c).await.len(), 5);

        let name = query(sql("SELECT external_id AS n FROM threads WHERE id = $1".into())).bind(branch);
        let name: String = name.one(&w.app.db).await.unwrap().get("n").unwrap();
        let own = answered(&w, &name, "own").await;
        assert_eq!(own.thread_id, branch);
        let context = messages::context(&w.app.db, branch, own.id).await.unwrap();
        let ids: Vec<_> = context.iter().map(|m| m.id.as_str()).collect();
        assert_eq!(ids, ["m-a", "answer-a", "m-b", "answer-b", "m-own", "answer-own"], "{}", w.name);
        let highest = context[..4].iter().map(|m| m.seq).max().unwrap();
        assert!(context[4].seq > highest, "what is its own comes after all that it inherits");

        let (deep, fork) = forked(&w, branch, "m-own").await;
        assert_eq!((fork.thread_id, fork.depth), (branch, 1));
        assert_eq!(all(&w, deep).await.len(), 5);
        let (back, fork) = forked(&w, deep, "answer-a").await;
        assert_eq!((fork.thread_id, fork.depth), (t, 0), "inherited by way of two");
        assert_eq!(all(&w, back).await, ["m-a", "answer-a"]);
        assert_eq!(w.count("thread_ancestors").await, 5);
        let mut tx = w.tx().await;
        assert!(branches::fork(&mut tx, back, "m-b").await.unwrap().is_none(), "it does not have that one");
    }
}

#[tokio::test]
async fn what_is_inherited_is_not_stored_again() {
    for w in worlds().await {
        let a = answered(&w, "t", "a").await;
        let (branch, _) = forked(&w, a.thread_id, "m-a").await;
        let mut tx = w.tx().await;
        let take = threads::Advance { messages: 3, ..threads::Advance::default() };
        let head = threads::advance(&mut tx, branch, take).await.unwrap();
        let new = [message("m-a", "again"), message("answer-a", "mine"), message("new", "mine")];
        let added = Added { thread_id: branch, run_id: new_id(), messages: &new, last_seq: head.last_message_seq };
        messages::insert(&mut tx, &[added], START).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(all(&w, branch).await, ["m-a", "answer-a", "new"], "{}: the answer came after the fork", w.name);
        let text = messages::between(&w.app.db, branch, Timestamp(0), Timestamp(i64::MAX)).await.unwrap()[0].body.plain();
        assert_eq!(text, "hello");
        assert_eq!(all(&w, a.thread_id).await, ["m-a", "answer-a"]);
    }
}

#[tokio::test]
async fn the_newest_message_may_be_an_inherited_one() {
    for w in worlds().await {
        let a = answered(&w, "t", "a").await;
        w.later(MINUTE);
        let b = answered(&w, "t", "b").await;
        let (branch, _) = forked(&w, a.thread_id, "answer-a").await;
        let newest = async |thread, before| messages::newest(&w.app.db, thread, before).await.unwrap();
        let later = START.after(MINUTE);
        assert_eq!(newest(b.thread_id, Timestamp(i64::MAX)).await, Some(later), "{}", w.name);
        assert_eq!(newest(branch, Timestamp(i64::MAX)).await, Some(START), "{}", w.name);
        assert_eq!(newest(branch, START).await, None);
    }
}

/// When retention has removed the runs, the numbers of the messages are left.
#[tokio::test]
async fn a_branch_outlives_its_parents_runs() {
    for w in worlds().await {
        let a = answered(&w, "t", "a").await;
        answered(&w, "t", "b").await;
        let (branch, _) = forked(&w, a.thread_id, "answer-a").await;
        w.execute("DELETE FROM runs").await;
        assert_eq!(all(&w, branch).await, ["m-a", "answer-a"], "{}", w.name);
        let mut tx = w.tx().await;
        assert!(branches::fork(&mut tx, branch, "m-a").await.unwrap().is_some());
        assert!(branches::fork(&mut tx, branch, "m-b").await.unwrap().is_none());
    }
}
