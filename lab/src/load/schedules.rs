//! Schedules that fire every second, each an agent's.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use runmill_shared::clock::Clock;
use serde_json::json;
use uuid::Uuid;

use super::Client;
use crate::history::Schedule;

pub struct Schedules(Vec<Uuid>);

impl Schedules {
    /// Before anything is broken, so that none is made twice.
    pub async fn start(client: &Client, n: usize) -> Result<Self> {
        let mut all = Vec::new();
        if n == 0 {
            return Ok(Self(all));
        }
        let (status, agent) = client.post("/api/v1/agents", &json!({ "name": "Clockwork" })).await;
        ensure!(status == 201, "an agent was refused: {status} {agent}");
        let agent = agent["id"].as_str().context("an agent without an id")?;
        let (status, deployed) = client.post(&format!("/api/v1/agents/{agent}/deploy"), &json!({})).await;
        ensure!(status == 200, "an agent was not deployed: {status} {deployed}");
        for n in 0..n {
            let body = json!({
                "name": format!("every second {n}"), "agent_id": agent, "cron": "* * * * * *", "input": format!("tick-{n} words=3"),
                "overlap": "allow", "max_failures": 1000,
            });
            let (status, schedule) = client.post("/api/v1/agent-schedules", &body).await;
            ensure!(status == 201, "a schedule was refused: {status} {schedule}");
            let id = schedule["id"].as_str().context("a schedule without an id")?.parse()?;
            let created = Clock::real().now().0;
            client.history.lock().schedules.push(Schedule { id, every: Duration::from_secs(1), created, stopped: None });
            all.push(id);
        }
        Ok(Self(all))
    }

    pub async fn stop(self, client: &Client) -> Result<()> {
        for id in self.0 {
            let body = json!({ "enabled": false });
            let now = Clock::real().now().0;
            client.history.lock().schedules.iter_mut().filter(|s| s.id == id).for_each(|s| s.stopped = Some(now));
            let (status, answer) = client.ask(reqwest::Method::PUT, &format!("/api/v1/agent-schedules/{id}"), Some(&body)).await;
            ensure!(status == 200, "a schedule was not stopped: {status} {answer}");
        }
        Ok(())
    }
}
