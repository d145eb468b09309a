//! Schedules on real databases: one instant is one run, whoever looks, how often, and whatever the clock does.
use std::collections::HashSet;

use runmill_shared::{
    domain::{
        agent::NewAgent,
        caller::Scope,
        goal::{Autonomy, NewGoal, Settings},
        page::PageRequest,
        run::RunError,
    },
    services::{
        goals,
        model_configs::Patch,
        schedules::{self, Change, Fire, Standing},
    },
    store::agents,
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn every_second(overlap: &str) -> Change {
    Change {
        name: Some("mine".into()),
        agent_id: Some("demo".into()),
        cron: Some("* * * * * *".into()),
        input: Some("hello".into()),
        overlap: Some(overlap.into()),
        ..Change::default()
    }
}

impl World {
    async fn schedule(&self, change: Change) -> Uuid {
        schedules::create(&self.app, &Caller::local(), change).await.unwrap().schedule.id
    }

    async fn standing(&self, id: Uuid) -> Standing {
        schedules::get(&self.app, &Caller::local(), id).await.unwrap()
    }

    async fn tick(&self) -> usize {
        schedules::tick(&self.app).await.unwrap()
    }

    /// A second later, somebody looks.
    async fn next_second(&self) -> usize {
        self.later(SECOND);
        self.tick().await
    }

    /// Oldest first.
    async fn fires(&self, id: Uuid) -> Vec<Fire> {
        let mut all = schedules::fires(&self.app, &Caller::local(), id, None, 10_000).await.unwrap();
        all.reverse();
        all
    }

    async fn statuses(&self, id: Uuid) -> Vec<&'static str> {
        self.fires(id).await.iter().map(|f| f.status.as_str()).collect()
    }

    /// Waits for what a run's end sets off.
    async fn told(&self, id: Uuid, statuses: &[&str]) {
        until(&format!("{statuses:?}"), || async { self.statuses(id).await == statuses }).await;
    }

    async fn fail(&self, run: &Claimed) {
        let error = RunError::new("BROKEN", "it broke", false);
        let end = End::failed(error.clone());
        let writes = Writes { events: vec![NewEvent::failed(&error, false)], ..Writes::default() };
        execution::end(&self.app, run, end, writes).await.unwrap();
    }

    async fn agent(&self, status: &str) -> Uuid {
        let (id, mut tx) = (new_id(), self.tx().await);
        agents::insert(&mut tx, id, &owner(), &NewAgent { name: "a".into(), ..NewAgent::default() }, START).await.unwrap();
        tx.commit().await.unwrap();
        self.execute(&format!("UPDATE agents SET status = '{status}'")).await;
        id
    }
}

#[tokio::test]
async fn each_instant_is_one_run_whoever_looks() {
    const SCHEDULES: usize = 40;
    for w in worlds().await {
        for _ in 0..SCHEDULES {
            w.schedule(every_second("allow")).await;
        }
        let mut started = 0;
        for _ in 0..8 {
            w.later(SECOND);
            let looks = futures::future::join_all((0..3).map(|_| w.tick())).await;
            // Who looked while another held a row passed it by: it is not due any more, or found at the next look.
            started += looks.iter().sum::<usize>() + w.tick().await;
        }
        assert_eq!(started, SCHEDULES * 8, "{}", w.name);
        assert_eq!(w.count("schedule_fires f JOIN runs r ON r.id = f.run_id").await, 320);
        assert_eq!((w.count("runs").await, w.count("messages").await), (320, 320));
        let named = "schedule_fires f JOIN runs r ON r.id = f.run_id JOIN threads t ON t.id = r.thread_id
             WHERE r.external_id LIKE 'schedule-%' AND t.external_id = r.external_id AND r.watcher = 'schedule' AND NOT t.listed";
        assert_eq!(w.count(named).await, 320);
        w.check().await;
    }
}

#[tokio::test]
async fn a_clock_that_is_set_fires_nothing_twice_and_leaves_nothing_out() {
    for mut w in worlds().await {
        let id = w.schedule(every_second("allow")).await;
        let at = |w: &mut World, second: u64| w.app.clock = Clock::manual(START.after(SECOND * u32::try_from(second).unwrap()));
        at(&mut w, 3);
        assert_eq!(w.tick().await, 3);
        at(&mut w, 33);
        assert_eq!(w.tick().await, 30, "a jump forward fires what lies between");
        at(&mut w, 20);
        assert_eq!(w.tick().await, 0);
        at(&mut w, 33);
        assert_eq!(w.tick().await, 0, "a jump back fires nothing twice");
        at(&mut w, 35);
        assert_eq!(w.tick().await, 2);
        let instants: Vec<_> = w.fires(id).await.iter().map(|f| f.scheduled_for.since(START).as_secs()).collect();
        assert_eq!(instants, (1..=35).collect::<Vec<_>>(), "{}", w.name);
        // The rows themselves stand in the way of a second run, even of a schedule that has been set back.
        w.execute(&format!("UPDATE schedules SET fired_until = {}, next_at = {}", START.0, START.0)).await;
        assert_eq!(w.tick().await, 0);
        assert_eq!(w.count("runs").await, 35);
    }
}

#[tokio::test]
async fn skip_leaves_out_what_comes_while_a_run_goes_on() {
    for w in worlds().await {
        let id = w.schedule(every_second("skip")).await;
        assert_eq!((w.next_second().await, w.next_second().await), (1, 0));
        assert_eq!(w.statuses(id).await, ["started", "skipped"]);
        let run = w.claim(w.fires(id).await[0].run_id.unwrap()).await;
        w.finish(&run).await;
        w.told(id, &["succeeded", "skipped"]).await;
        assert_eq!(w.next_second().await, 1);
        assert_eq!(w.statuses(id).await, ["succeeded", "skipped", "started"]);
    }
}

#[tokio::test]
async fn what_waits_starts_when_the_run_before_it_has_ended() {
    for w in worlds_with(|c| c.schedules.max_buffered = 2).await {
        let (one, all) = (w.schedule(every_second("buffer_one")).await, w.schedule(every_second("buffer_all")).await);
        for _ in 0..4 {
            w.next_second().await;
        }
        assert_eq!(w.statuses(one).await, ["started", "buffered", "skipped", "skipped"]);
        assert_eq!(w.statuses(all).await, ["started", "buffered", "buffered", "skipped"]);
        for id in [one, all] {
            let run = w.claim(w.fires(id).await[0].run_id.unwrap()).await;
            w.finish(&run).await;
        }
        w.told(one, &["succeeded", "started", "skipped", "skipped"]).await;
        w.told(all, &["succeeded", "started", "buffered", "skipped"]).await;
        // Cancelled by its owner: the next one's turn comes as well.
        control::cancel(&w.app, &Caller::local(), w.fires(all).await[1].run_id.unwrap()).await.unwrap();
        w.told(all, &["succeeded", "cancelled", "started", "skipped"]).await;
        let last = w.fires(all).await[2].clone();
        assert_eq!(w.run(last.run_id.unwrap()).await.external_id, format!("schedule-{all}-{}", last.scheduled_for.0));
        // Paused: what waits is done without, and does not come back.
        let paused = Change { enabled: Some(false), ..Change::default() };
        schedules::update(&w.app, &Caller::local(), one, paused).await.unwrap();
        w.later(MINUTE);
        let back = Change { enabled: Some(true), ..Change::default() };
        schedules::update(&w.app, &Caller::local(), one, back).await.unwrap();
        w.tick().await;
        assert_eq!(w.fires(one).await.len(), 4, "{}: what was missed while it was paused is not made up for", w.name);
    }
}

#[tokio::test]
async fn cancel_previous_leaves_the_latest() {
    for w in worlds().await {
        let id = w.schedule(every_second("cancel_previous")).await;
        w.next_second().await;
        w.next_second().await;
        w.told(id, &["cancelled", "started"]).await;
        w.later(SECOND * 3);
        w.tick().await;
        w.told(id, &["cancelled", "cancelled", "skipped", "skipped", "started"]).await;
        assert_eq!(w.count("runs WHERE state = 'queued'").await, 1);
    }
}

#[tokio::test]
async fn what_nobody_was_there_for_is_made_up_for_within_bounds() {
    for w in worlds_with(|c| c.schedules.catch_up_max = 5).await {
        let id = w.schedule(every_second("allow")).await;
        w.later(SECOND * 20);
        assert_eq!(w.tick().await, 5);
        let fires = w.fires(id).await;
        assert_eq!(w.statuses(id).await, ["missed", "started", "started", "started", "started", "started"]);
        assert!(fires[0].detail.as_ref().unwrap().starts_with("15 "), "{:?}", fires[0]);
        assert_eq!(fires[1].scheduled_for, START.after(SECOND * 16));
        assert_eq!(w.tick().await, 0);
    }
}

#[tokio::test]
async fn failures_in_a_row_pause_it_and_its_owner_is_told_once() {
    for w in worlds().await {
        let change = Change { max_failures: Patch::Set(2), ..every_second("allow") };
        let id = w.schedule(change).await;
        let fire = async |statuses: &[&str], well: bool| {
            w.next_second().await;
            let run = w.claim(w.fires(id).await.last().unwrap().run_id.unwrap()).await;
            if well {
                w.finish(&run).await
            } else {
                w.fail(&run).await
            }
            w.told(id, statuses).await;
        };
        fire(&["failed"], false).await;
        fire(&["failed", "succeeded"], true).await;
        fire(&["failed", "succeeded", "failed"], false).await;
        assert_eq!(w.standing(id).await.schedule.failures, 1, "a success begins anew");
        fire(&["failed", "succeeded", "failed", "failed"], false).await;
        until("it pauses itself", || async { !w.standing(id).await.schedule.enabled }).await;
        let paused = w.standing(id).await;
        assert_eq!(paused.schedule.paused_reason.as_deref(), Some("2 failures in a row, the last: BROKEN"));
        assert_eq!((paused.schedule.next_at, paused.next_fire_times.len()), (None, 0));
        assert_eq!(w.next_second().await, 0);
        assert_eq!(w.count("notifications WHERE kind = 'schedule_paused'").await, 1);
        w.later(MINUTE);
        let back = Change { enabled: Some(true), ..Change::default() };
        let back = schedules::update(&w.app, &Caller::local(), id, back).await.unwrap();
        assert_eq!((back.schedule.paused_reason, back.schedule.failures), (None, 0));
        assert_eq!((w.tick().await, w.next_second().await), (0, 1), "{}: from now", w.name);
    }
}

#[tokio::test]
async fn what_cannot_be_started_fails_with_its_reason() {
    for w in worlds().await {
        let draft = w.agent("draft").await;
        let change = Change { agent_id: Some(draft.to_string()), max_failures: Patch::Set(2), ..every_second("skip") };
        let id = w.schedule(change).await;
        let workflow = w.schedule(Change { agent_id: None, workflow_id: Some(new_id()), ..every_second("skip") }).await;
        assert_eq!(w.next_second().await, 0);
        let fire = w.fires(id).await.remove(0);
        assert!(fire.detail.as_ref().unwrap().starts_with("AGENT_NOT_PUBLISHED"), "{fire:?}");
        let refused = schedules::trigger(&w.app, &Caller::local(), id).await.unwrap_err();
        assert_eq!(refused.code, "AGENT_NOT_PUBLISHED");
        w.execute("UPDATE agents SET status = 'published'").await;
        w.later(SECOND);
        // What was refused gives its lock back in the background, and a tick leaves out what is locked.
        until("deployed, it is fired", async || w.tick().await == 1).await;
        assert_eq!(w.statuses(id).await, ["failed", "started"]);
        let run = w.claim(w.fires(id).await[1].run_id.unwrap()).await;
        assert_eq!((run.input["options"]["agent_version"].clone(), run.agent_id.clone()), (json!(1), Some(draft.to_string())));
        w.finish(&run).await;
        w.told(id, &["failed", "succeeded"]).await;
        w.execute("UPDATE agents SET status = 'stopped'").await;
        w.next_second().await;
        w.next_second().await;
        let paused = w.standing(id).await.schedule;
        assert_eq!(paused.paused_reason.as_deref(), Some("2 failures in a row, the last: AGENT_STOPPED"));
        let fires = w.fires(workflow).await;
        assert!(fires.iter().all(|f| f.detail.as_ref().unwrap().starts_with("WORKFLOWS_UNAVAILABLE")));
        assert_eq!((fires.len(), w.standing(workflow).await.schedule.failures), (4, 0), "{}: that is no failure", w.name);
    }
}

#[tokio::test]
async fn a_name_that_somebody_has_given_stops_no_other() {
    for w in worlds().await {
        let (taken, other) = (w.schedule(every_second("allow")).await, w.schedule(every_second("allow")).await);
        let name = format!("schedule-{taken}-{}", START.after(SECOND).0);
        w.accept("some thread", &name).await;
        assert_eq!(w.next_second().await, 1);
        assert_eq!((w.statuses(taken).await, w.statuses(other).await), (vec!["failed"], vec!["started"]));
        assert!(w.fires(taken).await[0].detail.as_ref().unwrap().starts_with("RUN_EXISTS"));
        w.check().await;
    }
}

#[tokio::test]
async fn a_goal_is_executed_anew_in_its_own_thread() {
    for w in worlds().await {
        let new = NewGoal {
            title: "weekly".into(),
            description: String::new(),
            agent_id: None,
            autonomy: Autonomy::Auto,
            deadline: None,
            settings: Settings::default(),
        };
        let goal = goals::create(&w.app, &Caller::local(), new).await.unwrap().goal;
        let id = w.schedule(Change { agent_id: None, goal_id: Some(goal.id), input: None, ..every_second("allow") }).await;
        assert_eq!((w.next_second().await, w.next_second().await), (1, 0));
        assert_eq!(w.statuses(id).await, ["started", "failed"]);
        let fires = w.fires(id).await;
        assert!(fires[1].detail.as_ref().unwrap().starts_with("GOAL_STATE"), "{:?}", fires[1]);
        let run = w.run(fires[0].run_id.unwrap()).await;
        assert_eq!((run.kind, run.thread_id), (RunKind::Goal, goal.thread_id));
        let goal = goals::get(&w.app, &Caller::local(), goal.id).await.unwrap().goal;
        assert_eq!((goal.status.as_str(), goal.run_id), ("active", Some(run.id)));
        let claimed = w.claim(run.id).await;
        assert_eq!(claimed.input["fresh"], true);
        w.check().await;
    }
}

#[tokio::test]
async fn by_hand_it_fires_whatever_else_is_running() {
    for w in worlds().await {
        let id = w.schedule(every_second("skip")).await;
        let caller = Caller::local();
        let runs: HashSet<_> =
            [schedules::trigger(&w.app, &caller, id).await.unwrap(), schedules::trigger(&w.app, &caller, id).await.unwrap()]
                .into();
        assert_eq!(runs.len(), 2);
        assert!(w.fires(id).await.iter().all(|f| f.by_hand && f.run_id.is_some()));
        assert_eq!(w.next_second().await, 0, "they are runs of it like any other");
        let shown = w.standing(id).await;
        assert_eq!((shown.last_runs.len(), shown.next_fire_times.len()), (2, 5));
        assert_eq!(shown.next_fire_times[0], w.app.clock.now().after(SECOND));
    }
}

#[tokio::test]
async fn a_page_of_schedules_shows_the_latest_five_of_each() {
    for w in worlds().await {
        let (first, second) = (w.schedule(every_second("allow")).await, w.schedule(every_second("allow")).await);
        for _ in 0..7 {
            w.next_second().await;
        }
        let page = PageRequest { number: 1, size: 20, search: Some("MINE".into()), status: Some("enabled".into()), sort: None };
        let listed = schedules::list(&w.app, &Caller::local(), &page).await.unwrap();
        assert_eq!((listed.total, listed.items.len()), (2, 2));
        for (standing, id) in listed.items.iter().zip([second, first]) {
            assert_eq!(standing.schedule.id, id, "newest first");
            let seconds: Vec<_> = standing.last_runs.iter().map(|f| f.scheduled_for.since(START).as_secs()).collect();
            assert_eq!(seconds, [7, 6, 5, 4, 3]);
        }
        let before = START.after(SECOND * 3);
        let earlier = schedules::fires(&w.app, &Caller::local(), first, Some(before), 10).await.unwrap();
        assert_eq!(earlier.len(), 2);
        schedules::remove(&w.app, &Caller::local(), first).await.unwrap();
        assert_eq!((w.count("schedule_fires").await, w.count("runs").await), (7, 14), "its runs stay");
        // Past retention, and ended or not: history is history.
        w.later(Duration::from_secs(40 * 86_400));
        assert_eq!(schedules::retention(&w.app).await.unwrap(), 7);
        let bob = Caller::user(new_id(), runmill_shared::domain::caller::Role::User);
        assert_eq!(schedules::get(&w.app, &bob, second).await.unwrap_err().code, "SCHEDULE_NOT_FOUND");
        assert!(bob.can(Scope::Write).is_ok());
    }
}

#[tokio::test]
async fn a_thousand_at_once_are_a_handful_of_transactions() {
    for w in worlds().await {
        let agent = w.agent("published").await;
        let change = Change { agent_id: Some(agent.to_string()), ..every_second("skip") };
        let first = w.schedule(change).await;
        let copy = "INSERT INTO schedules (id, owner, name, target_kind, target_id, spec, enabled, failures, fired_until, next_at, version, created_at, updated_at)";
        let mut tx = w.tx().await;
        for _ in 1..1000 {
            let text = format!(
                "{copy} SELECT $1, owner, name, target_kind, target_id, spec, enabled, failures, fired_until, next_at, version, created_at, updated_at FROM schedules WHERE id = $2"
            );
            query(Sql::both(Box::leak(text.into_boxed_str()))).bind(new_id()).bind(first).execute(&mut tx).await.unwrap();
        }
        tx.commit().await.unwrap();
        w.later(SECOND);
        let began = Instant::now();
        assert_eq!(w.tick().await, 1000);
        println!("{}: 1000 fires in {:?}", w.name, began.elapsed());
        assert_eq!(w.count("schedule_fires f JOIN runs r ON r.id = f.run_id AND r.ready").await, 1000);
        w.check().await;
    }
}
