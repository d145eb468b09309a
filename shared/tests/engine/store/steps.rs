use runmill_shared::{
    domain::step::{StepKind, StepWrite},
    store::steps,
};

use super::{super::*, NASTY};

fn start(key: &str, ordinal: i64, kind: StepKind) -> StepWrite {
    StepWrite::Start { key: key.into(), ordinal, kind, name: NASTY.into(), intent: json!({ "messageId": key, "text": NASTY }) }
}

fn end(key: &str) -> StepWrite {
    StepWrite::Finish { key: key.into(), result: json!({ "text": NASTY, "nul": "\0" }) }
}

#[tokio::test]
async fn a_step_starts_again_until_it_is_finished_and_never_after() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let mut tx = w.tx().await;
        for write in [start("model:1", 1, StepKind::Model), start("model:1", 1, StepKind::Model), start("b", 2, StepKind::Tool)] {
            steps::write(&mut tx, run.id, 1, &write, START).await.unwrap();
        }
        assert_eq!(steps::open_message(&mut tx, run.id).await.unwrap().as_deref(), Some("model:1"), "{}", w.name);
        steps::write(&mut tx, run.id, 1, &end("model:1"), START).await.unwrap();
        assert_eq!(steps::open_message(&mut tx, run.id).await.unwrap(), None);
        tx.commit().await.unwrap();
        for refused in [end("model:1"), start("model:1", 1, StepKind::Model), end("never started")] {
            let mut tx = w.tx().await;
            steps::write(&mut tx, run.id, 2, &refused, START).await.unwrap_err();
        }
        let journal = steps::of_run(&w.app.db, run.id).await.unwrap();
        assert_eq!(journal.iter().map(|s| s.key.as_str()).collect::<Vec<_>>(), ["model:1", "b"]);
        assert_eq!((journal[0].name.as_str(), &journal[0].result), (NASTY, &Some(json!({ "text": NASTY, "nul": "\0" }))));
        assert_eq!(journal[1].result, None);
    }
}

#[tokio::test]
async fn a_retry_inherits_what_was_finished_and_nothing_else() {
    for w in worlds().await {
        let (a, b) = (w.started("t", "a").await, w.started("u", "b").await);
        let mut tx = w.tx().await;
        for write in [start("1", 1, StepKind::Model), end("1"), start("2", 2, StepKind::Tool)] {
            steps::write(&mut tx, a.id, 1, &write, START).await.unwrap();
        }
        steps::inherit(&mut tx, b.id, a.id).await.unwrap();
        tx.commit().await.unwrap();
        let journal = steps::of_run(&w.app.db, b.id).await.unwrap();
        assert_eq!(journal, steps::of_run(&w.app.db, a.id).await.unwrap()[..1], "{}", w.name);
    }
}
