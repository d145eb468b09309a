//! Runs of agents that call tools, in threads that have several; some are cancelled, held for a while, or ask a person; readers come
//! and go.
use std::time::Duration;

use rand::{Rng, rngs::StdRng};
use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Client, people, retries};
use crate::{history::Kind, model::Wish};

/// Of one thread.
const RUNS: usize = 3;

/// What a client does to a run after it was accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Nothing,
    Cancel,
    Hold,
    /// Whether it is approved, or nobody says anything.
    Answer(Option<bool>),
}

pub async fn offer(client: &Client, n: usize, mut random: StdRng, stop: &CancellationToken) {
    for thread in 0.. {
        if stop.is_cancelled() {
            return;
        }
        let thread = format!("agents-{n}-{thread}");
        if random.random_bool(0.12) {
            retries::offer(client, &thread, &mut random).await;
            continue;
        }
        let mut questions = Vec::new();
        for run in 0..random.random_range(1..=RUNS) {
            let deed = draw(&mut random);
            let id = one(client, &thread, run, deed, &mut random).await;
            if let (Some(id), Deed::Answer(Some(approves))) = (id, deed) {
                questions.push((id, approves));
            }
        }
        let answers = async {
            for (run, approves) in questions {
                people::answer(client, run, approves).await;
            }
        };
        // One reads to the end; the other comes and goes.
        let never = CancellationToken::new();
        let restless = random.random_range(3..12);
        tokio::join!(answers, client.read(&thread, usize::MAX, &never), client.read(&thread, restless, &never));
    }
}

fn draw(random: &mut StdRng) -> Deed {
    match random.random_range(0..100) {
        0..10 => Deed::Cancel,
        10..20 => Deed::Hold,
        20..34 => Deed::Answer(Some(random.random_bool(0.7))),
        34..36 => Deed::Answer(None),
        _ => Deed::Nothing,
    }
}

async fn one(client: &Client, thread: &str, n: usize, deed: Deed, random: &mut StdRng) -> Option<Uuid> {
    let asks = usize::from(matches!(deed, Deed::Answer(_)));
    let wish = Wish { asks, calls: random.random_range(0..3), words: random.random_range(5..40), fails: false };
    let kind = if deed == Deed::Cancel { Kind::Cancelled } else { Kind::Agent { asks, calls: wish.calls } };
    let id = client.run(thread, &format!("{thread}-{n}"), kind, wish).await?;
    let pause = Duration::from_millis(random.random_range(0..1500));
    match deed {
        Deed::Cancel => {
            sleep(pause).await;
            let (status, answer) = client.post(&format!("/api/v1/agent/runs/{id}/cancel"), &Value::Null).await;
            match answer["status"].as_str().filter(|_| status == 200) {
                Some(state) => client.history.lock().cancelled.push((format!("{thread}-{n}"), state.to_owned())),
                None => client.history.wrong(format!("{thread}-{n} could not be cancelled: {status} {answer}")),
            }
        }
        Deed::Hold => {
            sleep(pause).await;
            people::hold(client, id, Duration::from_millis(random.random_range(0..2000))).await;
        }
        Deed::Answer(_) | Deed::Nothing => {}
    }
    Some(id)
}
