use runmill_shared::{
    domain::step::{StepKind, StepWrite},
    store::steps::{self, Held},
};

use super::{super::*, NASTY};

fn start(key: &str, ordinal: i64, kind: StepKind) -> StepWrite {
    StepWrite::Start { key: key.into(), ordinal, kind, name: NASTY.into(), intent: json!({ "messageId": key, "text": NASTY }) }
}

fn end(key: &str) -> StepWrite {
    StepWrite::Finish { key: key.into(), result: json!({ "text": NASTY, "nul": "\0" }) }
}

async fn write(tx: &mut Tx, run: &Claimed, fence: i64, all: &[StepWrite]) -> runmill_shared::Result<()> {
    let held: Vec<_> = all.iter().map(|step| Held { run_id: run.id, fence, step }).collect();
    steps::write(tx, &held, START).await
}

#[tokio::test]
async fn a_step_starts_again_until_it_is_finished_and_never_after() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let mut tx = w.tx().await;
        for step in [start("model:1", 1, StepKind::Model), start("model:1", 1, StepKind::Model), start("b", 2, StepKind::Tool)] {
            write(&mut tx, &run, 1, &[step]).await.unwrap();
        }
        assert_eq!(steps::open_message(&mut tx, run.id).await.unwrap().as_deref(), Some("model:1"), "{}", w.name);
        write(&mut tx, &run, 1, &[end("model:1")]).await.unwrap();
        assert_eq!(steps::open_message(&mut tx, run.id).await.unwrap(), None);
        tx.commit().await.unwrap();
        for refused in [end("model:1"), start("model:1", 1, StepKind::Model), end("never started")] {
            let mut tx = w.tx().await;
            write(&mut tx, &run, 2, &[refused]).await.unwrap_err();
        }
        let journal = steps::of_run(&w.app.db, run.id).await.unwrap();
        assert_eq!(journal.iter().map(|s| s.key.as_str()).collect::<Vec<_>>(), ["model:1", "b"]);
        assert_eq!((journal[0].name.as_str(), &journal[0].result), (NASTY, &Some(json!({ "text": NASTY, "nul": "\0" }))));
        assert_eq!(journal[1].result, None);
    }
}

#[tokio::test]
async fn a_retry_inherits_what_was_finished_and_tool_calls_that_may_have_had_their_effect() {
    for w in worlds().await {
        let (a, b) = (w.started("t", "a").await, w.started("u", "b").await);
        let mut tx = w.tx().await;
        write(
            &mut tx,
            &a,
            1,
            &[start("1", 1, StepKind::Model), end("1"), start("2", 2, StepKind::Tool), start("3", 3, StepKind::Model)],
        )
        .await
        .unwrap();
        steps::inherit(&mut tx, b.id, a.id).await.unwrap();
        tx.commit().await.unwrap();
        let journal = steps::of_run(&w.app.db, b.id).await.unwrap();
        let mut of_a = steps::of_run(&w.app.db, a.id).await.unwrap();
        assert!(of_a.iter().all(|s| !s.inherited), "{}", w.name);
        of_a.iter_mut().for_each(|s| s.inherited = true);
        assert_eq!(journal, of_a[..2]);
    }
}

#[tokio::test]
async fn a_step_that_came_to_nothing_is_taken_back_and_only_while_it_is_open() {
    let abandon = |key: &str| StepWrite::Abandon { key: key.into() };
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let mut tx = w.tx().await;
        let all = [start("1", 1, StepKind::Model), start("2", 2, StepKind::Tool), start("3", 3, StepKind::Tool), end("2")];
        write(&mut tx, &run, 1, &all).await.unwrap();
        write(&mut tx, &run, 1, &[abandon("1"), abandon("3")]).await.unwrap();
        tx.commit().await.unwrap();
        let keys =
            async || -> Vec<String> { steps::of_run(&w.app.db, run.id).await.unwrap().into_iter().map(|s| s.key).collect() };
        assert_eq!(keys().await, ["2"], "{}", w.name);
        for refused in [abandon("1"), abandon("2")] {
            write(&mut w.tx().await, &run, 1, &[refused]).await.unwrap_err();
        }
        let mut tx = w.tx().await;
        write(&mut tx, &run, 1, &[start("1", 4, StepKind::Model)]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(keys().await, ["2", "1"], "it starts anew");
    }
}

#[tokio::test]
async fn the_steps_of_many_runs_are_written_at_once_or_not_at_all() {
    for w in worlds().await {
        let (a, b) = (w.started("t", "a").await, w.started("u", "b").await);
        let (begun, ended) = (start("1", 1, StepKind::Tool), end("1"));
        let of = |run: &Claimed, step| Held { run_id: run.id, fence: run.fence, step };
        let mut tx = w.tx().await;
        steps::write(&mut tx, &[of(&a, &begun), of(&b, &begun), of(&b, &ended)], START).await.unwrap();
        tx.commit().await.unwrap();
        let result = async |run: &Claimed| steps::of_run(&w.app.db, run.id).await.unwrap()[0].result.clone();
        assert_eq!((result(&a).await.is_some(), result(&b).await.is_some()), (false, true), "{}", w.name);
        let mut tx = w.tx().await;
        let otherwise = StepWrite::Finish { key: "1".into(), result: json!("another result") };
        steps::write(&mut tx, &[of(&a, &ended), of(&b, &otherwise)], START).await.unwrap_err();
        drop(tx);
        assert_eq!(result(&a).await, None, "one that is refused takes the others with it");
    }
}

#[tokio::test]
async fn what_model_calls_used_is_counted_once_and_in_the_run_that_made_them() {
    let used =
        |input: u64| json!({ "usage": { "input_tokens": input, "output_tokens": 2, "cost_micros": 3 }, "message_text": NASTY });
    for w in worlds().await {
        let (a, b) = (w.started("t", "a").await, w.started("u", "b").await);
        let mut tx = w.tx().await;
        assert_eq!(steps::usage(&mut tx, a.id).await.unwrap(), None, "{}", w.name);
        let finish = |key: &str, result| StepWrite::Finish { key: key.into(), result };
        let all = [
            start("1", 1, StepKind::Model),
            finish("1", used(10)),
            start("2", 2, StepKind::Tool),
            finish("2", json!({ "usage": { "input_tokens": 99 } })),
            start("3", 3, StepKind::Model),
            finish("3", used(5)),
            start("4", 4, StepKind::Model),
        ];
        write(&mut tx, &a, 1, &all).await.unwrap();
        steps::inherit(&mut tx, b.id, a.id).await.unwrap();
        let usage = steps::usage(&mut tx, a.id).await.unwrap().unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.cost_micros), (15, 4, 6));
        assert_eq!(steps::usage(&mut tx, b.id).await.unwrap(), None, "what it inherited is in the other's account");
    }
}
