//! Goals whose tasks form a diamond: one, then several side by side, then one.
use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Client;
use crate::history::Goal;

const LOOK: Duration = Duration::from_millis(300);

pub async fn offer(client: &Client, n: usize, mut random: StdRng, stop: &CancellationToken) {
    for turn in 0.. {
        if stop.is_cancelled() {
            return;
        }
        let title = format!("goal {n} {turn}");
        let body =
            json!({ "title": title, "description": "a diamond", "autonomy": "auto", "max_parallel": 3, "task_attempts": 5 });
        // Asked twice it may be there twice; only the one that was answered is gone on with.
        let (status, goal) = client.post("/api/v1/goals", &body).await;
        let Some(id) = id_of(&goal).filter(|_| status == 201) else {
            client.history.wrong(format!("a goal was refused: {status} {goal}"));
            return;
        };
        let Some(tasks) = diamond(client, id, random.random_range(2..6)).await else { return };
        client.history.lock().goals.push(Goal { id, tasks, started: true });
        // 409: an earlier try whose answer was lost has started it.
        let (status, answer) = client.post(&format!("/api/v1/goals/{id}/execute-async"), &json!({})).await;
        if ![202, 409].contains(&status) {
            client.history.wrong(format!("the goal {id} was not started: {status} {answer}"));
            return;
        }
        if random.random_bool(0.4) {
            sleep(Duration::from_millis(random.random_range(0..2000))).await;
            hold(client, id, Duration::from_millis(random.random_range(0..2000))).await;
        }
        while !["completed", "failed", "cancelled"].contains(&status_of(client, id).await.as_str()) {
            sleep(LOOK).await;
        }
    }
}

/// Nothing new is started meanwhile. 409: it has ended, or an earlier try whose answer was lost has done it.
async fn hold(client: &Client, id: Uuid, length: Duration) {
    for (what, pause) in [("pause", length), ("resume", Duration::ZERO)] {
        let (status, answer) = client.post(&format!("/api/v1/goals/{id}/{what}"), &Value::Null).await;
        if ![200, 202, 409].contains(&status) {
            client.history.wrong(format!("{what} of the goal {id}: {status} {answer}"));
        }
        sleep(pause).await;
    }
}

async fn status_of(client: &Client, id: Uuid) -> String {
    let (_, goal) = client.get(&format!("/api/v1/goals/{id}")).await;
    goal["status"].as_str().unwrap_or_default().to_owned()
}

fn id_of(answer: &Value) -> Option<Uuid> {
    answer["id"].as_str()?.parse().ok()
}

/// `None`: a task was refused. Keys are unique in a goal, so that a task whose answer was lost is found by its key.
async fn diamond(client: &Client, goal: Uuid, width: usize) -> Option<BTreeMap<Uuid, Vec<Uuid>>> {
    let mut tasks = BTreeMap::new();
    let first = task(client, goal, "first", &[]).await?;
    tasks.insert(first, Vec::new());
    let mut middle = Vec::new();
    for n in 0..width {
        let id = task(client, goal, &format!("middle-{n}"), &[first]).await?;
        tasks.insert(id, vec![first]);
        middle.push(id);
    }
    let last = task(client, goal, "last", &middle).await?;
    tasks.insert(last, middle);
    Some(tasks)
}

async fn task(client: &Client, goal: Uuid, key: &str, depends_on: &[Uuid]) -> Option<Uuid> {
    let body = json!({ "goal_id": goal, "key": key, "title": key, "depends_on": depends_on });
    let (status, answer) = client.post("/api/v1/tasks", &body).await;
    if let Some(id) = id_of(&answer).filter(|_| status == 201) {
        return Some(id);
    }
    let (_, list) = client.get(&format!("/api/v1/tasks?goal_id={goal}&page_size=100")).await;
    let found = list["items"].as_array().into_iter().flatten().find(|t| t["key"] == key);
    let found = found.and_then(id_of);
    if found.is_none() {
        client.history.wrong(format!("the task {key} was refused: {status} {answer}"));
    }
    found
}
