//! Runs that fail, and are tried again by their client once what was wrong is mended: each in a thread of its own, so that the other try
//! answers the same message.
use rand::{Rng, rngs::StdRng};
use serde_json::Value;
use std::time::Duration;
use tokio::time::sleep;

use super::{Client, people};
use crate::{history::Kind, model::Wish};

const LOOK: Duration = Duration::from_millis(200);

pub async fn offer(client: &Client, thread: &str, random: &mut StdRng) {
    let wish = Wish { asks: 0, calls: random.random_range(0..3), words: random.random_range(5..40), fails: true };
    let Some(first) = client.run(thread, thread, Kind::Failing { calls: wish.calls }, wish).await else { return };
    while people::ended(client, first).await.is_none() {
        sleep(LOOK).await;
    }
    client.forgiven.add(thread);
    // Asked twice there may be two; each has to do what the first did not.
    let (status, answer) = client.post(&format!("/api/v1/agent/runs/{first}/retry"), &Value::Null).await;
    let again = answer["taskId"].as_str().and_then(|id| id.parse().ok()).filter(|_| status == 200);
    let Some(again) = again else {
        client.history.wrong(format!("{thread} could not be tried again: {status} {answer}"));
        return;
    };
    client.history.lock().retries.push((again, thread.to_owned()));
    while people::ended(client, again).await.is_none() {
        sleep(LOOK).await;
    }
}
