//! Reads a thread's events to the end, over as many connections as it takes.
use std::{cell::Cell, time::Duration};

use reqwest::Response;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{
    client::{Accepted, Client, Trouble, UNREACHABLE},
    screen::{Outcome, Screen},
    sse::Decoder,
};

/// A server that pings every 15 s and is silent for this long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// With no answer for so long we leave; the run goes on.
const GIVE_UP: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LAST_DELAY: Duration = Duration::from_secs(5);

pub struct Follow<'a> {
    pub client: &'a Client,
    pub thread: &'a str,
    /// only this run's events; none: the whole thread's
    pub run: Option<&'a Accepted>,
    /// the id of the last event that was shown
    pub cursor: &'a Cell<Option<u64>>,
}

/// How one connection ended.
enum End {
    Run(Outcome),
    Closed { retry: Option<Duration> },
    Left(u8),
}

impl Follow<'_> {
    /// Answers the exit code.
    pub async fn to_the_end(&self, mut screen: Screen) -> u8 {
        let (mut delay, mut heard) = (FIRST_DELAY, Instant::now());
        loop {
            let mut wait = delay;
            match self.client.events(self.thread, self.cursor.get()).await {
                Ok(None) => return self.ended(&mut screen).await,
                Ok(Some(stream)) => {
                    let before = self.cursor.get();
                    match self.read(stream, &mut screen).await {
                        End::Run(outcome) => return outcome.code(),
                        End::Left(code) => return code,
                        End::Closed { retry } => wait = retry.unwrap_or(delay),
                    }
                    heard = Instant::now();
                    if self.cursor.get() != before {
                        delay = FIRST_DELAY;
                    }
                }
                Err(trouble) if !trouble.is_passing() || heard.elapsed() > GIVE_UP => {
                    screen.clear();
                    return trouble.report();
                }
                Err(trouble) => {
                    if let Trouble::Refused { retry_after: Some(asked), .. } = trouble {
                        wait = asked;
                    }
                    screen.waiting_for("the server");
                }
            }
            sleep(wait.min(LAST_DELAY)).await;
            delay = (delay * 2).min(LAST_DELAY);
        }
    }

    async fn read(&self, mut stream: Response, screen: &mut Screen) -> End {
        let mut decoder = Decoder::default();
        // An error, silence and the end of the stream are the same to us: connect again after the last id.
        while let Ok(Ok(Some(piece))) = timeout(SILENCE, stream.chunk()).await {
            for frame in decoder.push(&piece) {
                let Ok(event) = serde_json::from_str::<Value>(&frame.data) else { continue };
                let about_us = event["taskId"].is_null() || self.run.is_none_or(|run| event["taskId"] == run.task_id.as_str());
                let shown = if about_us { screen.show(&event, &frame.data) } else { Ok(None) };
                self.cursor.set(frame.id.or(self.cursor.get()));
                match shown {
                    Ok(Some(outcome)) if self.run.is_some() => return End::Run(outcome),
                    Ok(_) => {}
                    // Whoever read our output is gone; the run is not.
                    Err(_) => return End::Left(0),
                }
            }
        }
        screen.waiting_for("the server");
        End::Closed { retry: decoder.retry }
    }

    /// Nothing is active after the cursor: what was the end of it?
    async fn ended(&self, screen: &mut Screen) -> u8 {
        screen.clear();
        if let Some(outcome) = screen.last_outcome() {
            return outcome.code();
        }
        match self.client.status(self.thread, self.run).await {
            Ok(status) => match Outcome::of_status(&status) {
                Some(outcome) => outcome.code(),
                None => {
                    eprintln!("runmill: the run is {status}, and the server sends no events of it");
                    UNREACHABLE
                }
            },
            Err(trouble) => trouble.report(),
        }
    }
}
