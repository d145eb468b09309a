//! People: they answer what runs ask, and hold runs and let them go on.
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::Client;
use crate::history::Decision;

const LOOK: Duration = Duration::from_millis(200);

/// Waits for the run's question and answers it; a run that has ended asks no more.
pub async fn answer(client: &Client, run: Uuid, approves: bool) {
    loop {
        let (status, list) = client.get("/api/v1/approval?status=pending&page_size=100").await;
        if status != 200 {
            client.history.wrong(format!("what is to be decided could not be listed: {status} {list}"));
            return;
        }
        let mine = list["items"].as_array().into_iter().flatten().find(|a| a["execution_id"] == json!(run));
        if let Some(approval) = mine.and_then(|a| a["id"].as_str()?.parse().ok()) {
            return resolve(client, approval, approves).await;
        }
        if ended(client, run).await.is_some() {
            return;
        }
        sleep(LOOK).await;
    }
}

async fn resolve(client: &Client, approval: Uuid, approves: bool) {
    let body = json!({ "decision": if approves { "approve" } else { "reject" }, "comment": "by the laboratory" });
    let (status, answer) = client.post(&format!("/api/v1/approval/{approval}/resolve"), &body).await;
    if ![200, 409].contains(&status) {
        client.history.wrong(format!("the approval {approval} could not be decided: {status} {answer}"));
    }
    client.history.lock().decisions.push(Decision { approval, approves, taken: status == 200 });
}

/// The state that the run has ended in.
pub async fn ended(client: &Client, run: Uuid) -> Option<String> {
    let (_, body) = client.get(&format!("/api/v1/agent/runs/{run}")).await;
    let status = body["status"].as_str().unwrap_or_default();
    ["succeeded", "failed", "cancelled"].contains(&status).then(|| status.to_owned())
}

/// Holds it, and lets it go on. 409: it has ended, or an earlier try whose answer was lost has done it.
pub async fn hold(client: &Client, run: Uuid, length: Duration) {
    for (what, pause) in [("pause", length), ("resume", Duration::ZERO)] {
        let (status, answer) = client.post(&format!("/api/v1/executions/{run}/{what}"), &Value::Null).await;
        if ![200, 409].contains(&status) {
            client.history.wrong(format!("{what} of {run}: {status} {answer}"));
        }
        sleep(pause).await;
    }
}
