//! Many runs that end in one flush.
use runmill_shared::{domain::run::RunError, services::runs::execution::Fenced};

use super::{cancel::start_child, *};

fn succeeds(run: &Claimed) -> Unit<'_> {
    let result = json!(run.external_id);
    let events = vec![delta("last words"), NewEvent::finished(&result, RunUsage::default(), &[])];
    Unit { run, writes: Writes { events, end: Some(End::succeeded(result)), ..Writes::default() } }
}

fn fails(run: &Claimed) -> Unit<'_> {
    let error = RunError::new("X", "x", false);
    let events = vec![NewEvent::failed(&error, false)];
    Unit { run, writes: Writes { events, end: Some(End::failed(error)), ..Writes::default() } }
}

#[tokio::test]
async fn each_hands_its_own_thread_on_and_one_that_was_lost_ends_nothing() {
    for w in worlds().await {
        let (mut runs, mut behind) = (Vec::new(), Vec::new());
        for n in 0..6 {
            let thread = format!("t{n}");
            runs.push(w.started(&thread, &format!("first{n}")).await);
            behind.push(w.accept(&thread, &format!("second{n}")).await.id);
        }
        execution::release(&w.app, &runs[2]).await.unwrap();
        let units = runs.iter().enumerate().map(|(n, run)| if n == 4 { fails(run) } else { succeeds(run) });
        let lost = execution::flush(&w.app, units.collect(), &mut Doubt::default()).await.unwrap();
        assert_eq!(lost.iter().map(|l| l.id).collect::<Vec<_>>(), [runs[2].id], "{}", w.name);
        for (n, run) in runs.iter().enumerate() {
            let expected = match n {
                2 => RunState::Queued,
                4 => RunState::Failed,
                _ => RunState::Succeeded,
            };
            let now = w.run(run.id).await;
            assert_eq!((now.state, w.is_ready(behind[n]).await), (expected, n != 2), "{}: {n}", w.name);
            assert_eq!(now.result, (expected == RunState::Succeeded).then(|| json!(run.external_id)), "each its own result");
        }
        assert_eq!(w.kinds(runs[0].id).await, ["run.queued", "text.delta", "run.finished"]);
        assert_eq!(w.kinds(runs[2].id).await, ["run.queued"]);
        w.check().await;
    }
}

#[tokio::test]
async fn a_parent_and_its_child_may_end_together_and_other_parents_are_woken() {
    for w in worlds().await {
        let (a, b) = (w.started("a", "a").await, w.started("b", "b").await);
        let (of_a, of_b) = (start_child(&w, &a).await, start_child(&w, &b).await);
        let left = start_child(&w, &a).await;
        let (of_a, of_b) = (w.claim(of_a).await, w.claim(of_b).await);
        let units = vec![succeeds(&a), succeeds(&of_a), fails(&of_b)];
        assert!(execution::flush(&w.app, units, &mut Doubt::default()).await.unwrap().is_empty(), "{}", w.name);
        until("the child that is left is cancelled", async || w.state(left).await == RunState::Cancelled).await;
        until("the other parent is woken", async || w.column(b.id, "wake_seq").await == Some(1)).await;
        assert_eq!((w.state(of_a.id).await, w.state(of_b.id).await), (RunState::Succeeded, RunState::Failed));
        w.finish(&b).await;
        w.check().await;
    }
}

/// As a worker does whose first commit was made and not answered.
async fn flushed_twice<'a>(w: &World, units: impl Fn() -> Vec<Unit<'a>>) -> [Vec<Fenced>; 2] {
    let mut doubt = Doubt::default();
    let first = execution::flush(&w.app, units(), &mut doubt).await.unwrap();
    [first, execution::flush(&w.app, units(), &mut doubt).await.unwrap()]
}

#[tokio::test]
async fn a_commit_without_an_answer_that_is_made_again_writes_nothing_twice() {
    for w in worlds().await {
        let (a, b) = (w.started("a", "a").await, w.started("b", "b").await);
        let says = |run| Unit { run, writes: Writes { events: vec![delta("once")], ..Writes::default() } };
        assert_eq!(flushed_twice(&w, || vec![says(&a), says(&b)]).await, [vec![], vec![]], "{}", w.name);
        assert_eq!(w.kinds(a.id).await, ["run.queued", "text.delta"], "{}", w.name);
        // The one that was lost stays lost, though the commit that the second try finds was made without it.
        execution::release(&w.app, &a).await.unwrap();
        let lost = Fenced { id: a.id, fence: a.fence };
        assert_eq!(flushed_twice(&w, || vec![says(&a), says(&b)]).await, [vec![lost], vec![lost]], "{}", w.name);
        assert_eq!(w.kinds(b.id).await, ["run.queued", "text.delta", "text.delta"], "{}", w.name);
        w.finish(&b).await;
    }
}

#[tokio::test]
async fn steps_without_events_are_written_again_without_harm_but_never_with_another_result() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let step = |write: StepWrite| Unit { run: &run, writes: Writes { steps: vec![write], ..Writes::default() } };
        let start = || StepWrite::Start {
            key: "model:0".into(),
            ordinal: 0,
            kind: StepKind::Model,
            name: "m".into(),
            intent: json!({ "messageId": "x" }),
        };
        let finish = |result: &str| StepWrite::Finish { key: "model:0".into(), result: json!(result) };
        assert_eq!(flushed_twice(&w, || vec![step(start())]).await, [vec![], vec![]], "{}", w.name);
        assert_eq!(flushed_twice(&w, || vec![step(finish("noon"))]).await, [vec![], vec![]], "{}", w.name);
        let other = execution::flush(&w.app, vec![step(finish("night"))], &mut Doubt::default()).await;
        assert!(other.is_err(), "{}", w.name);
        let again = execution::flush(&w.app, vec![step(start())], &mut Doubt::default()).await;
        assert!(again.is_err(), "{}", w.name);
        assert_eq!(execution::journal(&w.app, run.id).await.unwrap()[0].result, Some(json!("noon")), "{}", w.name);
        w.finish(&run).await;
    }
}
