//! A goal is executed by workers that are killed all the time; and one waits for people while everything is started anew.
use std::{collections::HashMap, time::Duration};

use runmill_testkit::ledger::Ledger;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    LIMIT,
    client::{Frame, Reader},
    eventually,
    model::{Call, words},
    world::{Setup, World},
};

/// Of the layers of a plan that begins and ends with one task.
const WIDTHS: [usize; 6] = [1, 8, 10, 10, 10, 1];
const TASKS: usize = 40;
const EVERY: Duration = Duration::from_secs(2);
/// A machine that is busy with other things does little in two seconds: in the end it is left alone.
const KILLING: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(90);

/// A goal and its tasks by their ids, each with those that it depends on.
struct Planned {
    id: String,
    tasks: HashMap<String, Vec<String>>,
}

impl Planned {
    fn path(&self, action: &str) -> String {
        format!("/goals/{}{action}", self.id)
    }
}

impl World {
    /// Asks until there is an answer; it has to be a good one.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let deadline = Instant::now() + LIMIT;
        for api in 0.. {
            match self.client.call(api, method, path, body).await {
                Ok((200..=299, answer)) => return answer,
                Ok((status @ 400..=499, answer)) => panic!("{method} {path}: {status} {answer}"),
                outcome => assert!(Instant::now() < deadline, "{method} {path}: {outcome:?}"),
            }
            sleep(Duration::from_millis(25)).await;
        }
        unreachable!("the loop has no end")
    }

    /// Each task depends on two of the layer before; the last on all of it.
    async fn layered(&self, widths: &[usize], more: Value) -> Planned {
        let mut goal = json!({ "title": "Paint the fence", "max_parallel": 4 });
        goal.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let id = self.ask("POST", "/goals", &goal).await["id"].as_str().unwrap().to_owned();
        let (mut tasks, mut before) = (HashMap::new(), Vec::<String>::new());
        for (layer, width) in widths.iter().enumerate() {
            let mut these = Vec::new();
            for i in 0..*width {
                let on: Vec<_> = if *width == 1 {
                    before.clone()
                } else {
                    let two = [i % before.len(), (i + 1) % before.len()];
                    two[..before.len().min(2)].iter().map(|j| before[*j].clone()).collect()
                };
                let task = json!({ "goal_id": id, "title": format!("task-{layer}-{i}"), "depends_on": on });
                let made = self.ask("POST", "/tasks", &task).await["id"].as_str().unwrap().to_owned();
                tasks.insert(made.clone(), on);
                these.push(made);
            }
            before = these;
        }
        Planned { id, tasks }
    }

    async fn execute(&self, goal: &Planned) -> Reader {
        self.ask("POST", &goal.path("/execute-async"), &json!({})).await;
        self.client.read(&format!("goal-{}", goal.id))
    }
}

/// How the log tells that a task became so: where in it.
fn changes<'a>(frames: &'a [Frame], task: &'a str, status: &'a str) -> impl Iterator<Item = i64> + 'a {
    let told = |frame: &&Frame| frame.event == "task.changed";
    let data = |frame: &'a Frame| (frame.id, &frame.data["data"]);
    let mine = move |(_, data): &(i64, &Value)| data["taskId"] == task && data["status"] == status;
    frames.iter().filter(told).map(data).filter(mine).map(|(id, _)| id)
}

/// Every task was completed exactly once, and after those that it depends on.
fn check_log(goal: &Planned, frames: &[Frame]) {
    for (task, on) in &goal.tasks {
        let completed: Vec<_> = changes(frames, task, "completed").collect();
        assert_eq!(completed.len(), 1, "{task} was completed at {completed:?}");
        let started: Vec<_> = changes(frames, task, "running").collect();
        assert_eq!(started.len(), 1, "{task} was started at {started:?}");
        for before in on {
            let done = changes(frames, before, "completed").next();
            assert!(done.is_some_and(|done| done < started[0]), "{task} began at {started:?}, {before} was done at {done:?}");
        }
    }
    let mut told = frames.iter().filter(|frame| frame.event == "goal.changed").map(|frame| &frame.data["data"]);
    let progress: Vec<_> = told.clone().map(|data| data["progress"]["done"].as_i64().unwrap()).collect();
    assert!(progress.is_sorted(), "{progress:?}");
    let last = told.next_back().unwrap();
    assert_eq!((&last["status"], &last["progress"]["percent"]), (&json!("completed"), &json!(100)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goal_of_forty_tasks_while_a_worker_is_killed_every_two_seconds() {
    // Long enough that most kills meet some, and short enough that a task which was given back is done before the next.
    let slow = |_: &Call| words(20).delay_per_token(Duration::from_millis(30));
    // Nothing here is poison, however often it is met.
    let settings = vec![("RUNMILL_RUNS__MAX_CRASHES", "1000".to_owned())];
    let mut world = World::start(Setup { workers: 3, settings, ..Setup::default() }, slow).await;
    let goal = world.layered(&WIDTHS, json!({})).await;
    assert_eq!(goal.tasks.len(), TASKS);
    let mut reader = world.execute(&goal).await;
    let (began, mut kills, mut progress) = (Instant::now(), 0, Vec::new());
    let seen = loop {
        if let Ok(seen) = timeout(EVERY, reader.ended()).await {
            break seen;
        }
        assert!(began.elapsed() < LONGEST, "{progress:?} after {kills} kills");
        if began.elapsed() > KILLING {
            continue;
        }
        // In turn it would always be the one that has just been given what the last one had.
        let victim = &mut world.workers[[0, 1, 2, 1, 0, 2][kills % 6]];
        victim.kill9().unwrap();
        victim.start().unwrap();
        kills += 1;
        progress.push(world.ask("GET", &goal.path(""), &json!({})).await["progress"]["done"].as_i64().unwrap());
    };
    assert!(kills >= 3, "it was over after {kills} kills");
    assert!(progress.is_sorted(), "{progress:?}");
    let ended = world.ask("GET", &goal.path(""), &json!({})).await;
    assert_eq!((&ended["status"], &ended["progress"]["done"]), (&json!("completed"), &json!(TASKS)), "{ended}");
    check_log(&goal, &seen.frames);
    let ledger = settled(&world).await;
    let runs: HashMap<_, _> = ledger.runs.iter().map(|run| (run.id.to_string(), run)).collect();
    assert_eq!(runs.len(), TASKS + 1, "a run for each task and one for the goal");
    assert!(runs.values().all(|run| run.state == "succeeded" && run.lease_owner.is_none()), "{runs:?}");
    let mut crashes = 0;
    for task in goal.tasks.keys() {
        let task = world.ask("GET", &format!("/tasks/{task}"), &json!({})).await;
        let run = runs[task["execution_id"].as_str().unwrap()];
        let calls = i64::try_from(world.model.calls(task["title"].as_str().unwrap(), 0)).unwrap();
        assert!(
            (1..=1 + run.crashes).contains(&calls),
            "{} was asked {calls} times, and crashed {} times",
            task["title"],
            run.crashes
        );
        crashes += run.crashes;
    }
    println!(
        "goal     | {TASKS} tasks, 3 workers, {kills} kills, {crashes} executions cut off: completed after {:.3} s",
        began.elapsed().as_secs_f64()
    );
}

/// The database, when all that was told has been applied.
async fn settled(world: &World) -> Ledger {
    eventually("all notices are applied", || async {
        let ledger = Ledger::read(&world.db).await.ok()?;
        (ledger.outbox == 0).then_some(ledger)
    })
    .await
}

/// Kills every process and starts it again.
async fn restart(world: &mut World) {
    for process in world.apis.iter_mut().chain(&mut world.workers) {
        process.kill9().unwrap();
    }
    for process in world.apis.iter_mut().chain(&mut world.workers) {
        process.start().unwrap();
    }
    for process in world.apis.iter_mut().chain(&mut world.workers) {
        process.ready().await.unwrap();
    }
}

/// Waits until a decision is wanted; answers its id.
async fn wanted(world: &World) -> String {
    let pending = || world.client.call(0, "GET", "/approval?status=pending", &Value::Null);
    eventually("a person is asked", || async {
        let (status, listed) = pending().await.ok()?;
        (status == 200).then(|| listed["items"][0]["id"].as_str().map(str::to_owned))?
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goal_that_waits_for_people_while_everything_is_killed() {
    let mut world = World::start(Setup { workers: 2, ..Setup::default() }, |_: &Call| words(5)).await;
    let goal = world.layered(&[1, 2], json!({ "autonomy": "approve_each" })).await;
    let mut reader = world.execute(&goal).await;
    let mut asked = Vec::new();
    for round in 0..goal.tasks.len() {
        let approval = wanted(&world).await;
        if round < 2 {
            restart(&mut world).await;
        }
        let resolve = format!("/approval/{approval}/resolve");
        world.ask("POST", &resolve, &json!({ "decision": "approve" })).await;
        asked.push(approval);
    }
    let seen = reader.ended().await;
    check_log(&goal, &seen.frames);
    let requested = seen.frames.iter().filter(|frame| frame.event == "approval.requested").count();
    assert_eq!((requested, asked.len()), (3, 3), "each was asked once");
    let ledger = settled(&world).await;
    assert!(ledger.runs.iter().all(|run| run.state == "succeeded"), "{:?}", ledger.runs);
    for layer in ["task-0-0", "task-1-0", "task-1-1"] {
        assert_eq!(world.model.calls(layer, 0), 1, "{layer}");
    }
}
