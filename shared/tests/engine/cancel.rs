//! Stopping and trying again, in every state, and what it sets off.
use runmill_shared::{
    domain::{
        run::Waiting,
        step::{StepKind, StepWrite},
    },
    error::ErrorKind,
    events::live::Order,
    queue::Queue,
    services::runs::{
        execution::{Child, Parked},
        sweep,
    },
};

use super::*;

async fn cancel(w: &World, id: Uuid) -> Run {
    control::cancel(&w.app, &Caller::local(), id).await.unwrap()
}

fn child_step(id: Uuid) -> StepWrite {
    StepWrite::Start { key: format!("child:{id}"), ordinal: 1, kind: StepKind::Child, name: "delegate".into(), intent: json!({}) }
}

pub async fn start_child(w: &World, parent: &Claimed) -> Uuid {
    let child = Child {
        id: new_id(),
        kind: RunKind::Agent,
        input: "{}".into(),
        messages: vec![],
        agent_id: None,
        model: None,
        watcher: None,
    };
    let step = child_step(child.id);
    execution::start_child(&w.app, parent, child, step).await.unwrap().id
}

async fn wait_for(w: &World, parent: &Claimed, runs: Vec<Uuid>) {
    let parked = execution::park(&w.app, parent, parent.wake_seq, &Waiting::Children { runs, until: None }, Writes::default())
        .await
        .unwrap();
    assert_eq!(parked, Parked::Yes);
}

#[tokio::test]
async fn a_run_can_be_cancelled_in_every_state_and_its_thread_goes_on() {
    for w in worlds().await {
        let queued = w.accept("t", "a").await.id;
        let next = w.accept("t", "b").await.id;
        assert_eq!(cancel(&w, queued).await.state, RunState::Cancelled, "{}", w.name);
        let running = w.claim(next).await;
        let third = w.accept("t", "c").await.id;
        let mut orders = w.app.live.orders();
        cancel(&w, running.id).await;
        assert_eq!(orders.recv().await.unwrap(), Order::Stop(running.id), "the worker that executes it is told");
        assert_eq!(finish(&w.app, &running).await.unwrap_err().code, execution::LOST);
        let waiting = w.claim(third).await;
        wait_for(&w, &waiting, vec![new_id()]).await;
        cancel(&w, third).await;
        let behind = w.accept("t", "d").await.id;
        let last = w.accept("t", "e").await.id;
        cancel(&w, last).await;
        assert!(w.is_ready(behind).await);
        assert_eq!(w.kinds(third).await, ["run.queued", "run.waiting", "run.cancelled"]);
        let again = cancel(&w, third).await;
        assert_eq!(again.state, RunState::Cancelled, "an ended run stays as it is");
        assert_eq!(w.kinds(third).await.len(), 3);
        w.check().await;
        let Queue::Memory(_) = &w.app.queue else { panic!("these run in process") };
        until("only the ready run has a hint", async || {
            w.app.queue.depth(runmill_shared::domain::Lane::Runs).await.unwrap() == 1
        })
        .await;
    }
}

#[tokio::test]
async fn cancel_reaches_children_and_their_children() {
    for w in worlds().await {
        let parent = w.started("t", "parent").await;
        let queued = start_child(&w, &parent).await;
        let running = w.claim(start_child(&w, &parent).await).await;
        let grandchild = start_child(&w, &running).await;
        wait_for(&w, &parent, vec![queued, running.id]).await;
        cancel(&w, parent.id).await;
        until("the whole tree is cancelled", async || w.count("runs WHERE state = 'cancelled'").await == 4).await;
        until("every notice is applied", async || w.count("outbox").await == 0).await;
        assert_eq!(w.run(grandchild).await.root_run_id, Some(parent.id), "{}", w.name);
        assert!(w.try_claim(queued, w.session().await).await.is_none());
        w.check().await;
    }
}

#[tokio::test]
async fn what_a_parent_left_behind_is_found_without_a_notice() {
    for w in worlds().await {
        let parent = w.started("t", "parent").await;
        let child = start_child(&w, &parent).await;
        assert_eq!(sweep::strays(&w.app).await.unwrap(), 0, "{}", w.name);
        // As if the notice had been lost with a restored backup.
        w.execute("UPDATE runs SET parent_run_id = NULL WHERE parent_run_id IS NOT NULL").await;
        w.finish(&parent).await;
        w.execute(
            "UPDATE runs SET parent_run_id = (SELECT id FROM runs WHERE external_id = 'parent') WHERE external_id <> 'parent'",
        )
        .await;
        assert_eq!(sweep::strays(&w.app).await.unwrap(), 1);
        assert_eq!(w.state(child).await, RunState::Cancelled);
        assert_eq!(sweep::strays(&w.app).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_answer_that_was_half_streamed_is_closed() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let intent = json!({ "messageId": "m1" });
        let step = StepWrite::Start { key: "model:1".into(), ordinal: 1, kind: StepKind::Model, name: "m".into(), intent };
        let writes = Writes { events: vec![delta("ha")], steps: vec![step], ..Writes::default() };
        assert_eq!(
            execution::flush(&w.app, vec![Unit { run: &run, writes }], &mut execution::Doubt::default()).await.unwrap(),
            []
        );
        cancel(&w, run.id).await;
        assert_eq!(w.kinds(run.id).await, ["run.queued", "text.delta", "message.finished", "run.cancelled"], "{}", w.name);
        let log = w.log(run.thread_id).await;
        assert_eq!(log[2].data, json!({ "messageId": "m1", "role": "assistant", "discarded": true }));
        assert!(log.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    }
}

#[tokio::test]
async fn a_retry_is_a_new_run_with_the_old_ones_journal() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let refused = control::retry(&w.app, &Caller::local(), run.id, None).await.unwrap_err();
        assert_eq!((refused.kind, refused.code), (ErrorKind::Conflict, "RUN_NOT_ENDED"), "{}", w.name);
        let intent = json!({});
        let steps = vec![
            StepWrite::Start { key: "1".into(), ordinal: 1, kind: StepKind::Tool, name: "now".into(), intent },
            StepWrite::Finish { key: "1".into(), result: json!("noon") },
        ];
        execution::flush(
            &w.app,
            vec![Unit { run: &run, writes: Writes { steps, ..Writes::default() } }],
            &mut execution::Doubt::default(),
        )
        .await
        .unwrap();
        cancel(&w, run.id).await;
        let retry = control::retry(&w.app, &Caller::local(), run.id, None).await.unwrap();
        let row = w.run(retry.id).await;
        assert_eq!((row.retry_of, row.thread_id, row.state), (Some(run.id), run.thread_id, RunState::Queued));
        assert_eq!(execution::journal(&w.app, retry.id).await.unwrap()[0].result, Some(json!("noon")));
        let other = Caller::user(new_id(), runmill_shared::domain::caller::Role::User);
        for refused in
            [control::retry(&w.app, &other, run.id, None).await.err(), control::cancel(&w.app, &other, run.id).await.err()]
        {
            assert_eq!(refused.unwrap().kind, ErrorKind::NotFound, "another's run is not there");
        }
        w.check().await;
    }
}
