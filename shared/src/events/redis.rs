//! Live events between processes: Redis pub/sub on a fixed number of channels, so that a process subscribes once and not
//! once a thread.
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::StreamExt;
use redis::{Client, aio::ConnectionManager};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::live::{Hub, Order};
use crate::{
    config,
    domain::event::Event,
    error::{Error, Result},
    tasks,
};

const CHANNELS: u128 = 16;
/// Messages that wait for Redis; past it they are dropped, and readers find the events in the log.
const PENDING: usize = 8192;
/// A batch larger than this is announced and not carried.
const LARGEST: usize = 256 * 1024;

#[derive(Clone)]
pub struct RedisTransport(Arc<Inner>);

struct Inner {
    client: Client,
    prefix: String,
    timeout: Duration,
    hub: Arc<Hub>,
    outgoing: OnceLock<mpsc::Sender<(String, String)>>,
    events: OnceLock<watch::Receiver<bool>>,
    orders: OnceLock<watch::Receiver<bool>>,
}

#[derive(Serialize, Deserialize)]
struct Message {
    thread: Uuid,
    /// Empty: look into the log.
    events: Vec<Event>,
}

impl RedisTransport {
    pub fn open(config: &config::Redis, hub: Arc<Hub>) -> Result<Self> {
        let client = Client::open(config.url.expose()).map_err(|e| Error::invalid("redis.url", "no Redis URL").because(e))?;
        Ok(Self(Arc::new(Inner {
            client,
            prefix: config.prefix.clone(),
            timeout: config.response_timeout,
            hub,
            outgoing: OnceLock::new(),
            events: OnceLock::new(),
            orders: OnceLock::new(),
        })))
    }

    fn event_channel(&self, n: u128) -> String {
        format!("{}:events:{n}", self.0.prefix)
    }

    fn stop_channel(&self) -> String {
        format!("{}:stop", self.0.prefix)
    }

    pub fn publish(&self, thread_id: Uuid, events: Vec<Event>) {
        let message = Message { thread: thread_id, events };
        let Ok(mut text) = serde_json::to_string(&message) else { return };
        if text.len() > LARGEST {
            text = format!(r#"{{"thread":"{thread_id}","events":[]}}"#);
        }
        self.send(self.event_channel(thread_id.as_u128() % CHANNELS), text);
    }

    pub fn order(&self, order: Order) {
        self.send(self.stop_channel(), spell(order));
    }

    fn send(&self, channel: String, text: String) {
        let outgoing = self.0.outgoing.get_or_init(|| {
            let (tx, rx) = mpsc::channel(PENDING);
            tasks::spawn("publish live events", deliver(self.0.client.clone(), self.0.timeout, rx));
            tx
        });
        if outgoing.try_send((channel, text)).is_err() {
            metrics::counter!("runmill_live_messages_dropped_total").increment(1);
        }
    }

    /// Returns once the subscription is confirmed, or after a second without Redis: then the watch over the log stands in.
    pub async fn listen_for_events(&self) {
        let mut confirmed = self
            .0
            .events
            .get_or_init(|| {
                let channels = (0..CHANNELS).map(|n| self.event_channel(n)).collect();
                self.listen("receive live events", channels, |hub, text| {
                    if let Ok(Message { thread, events }) = serde_json::from_str(text) {
                        if events.is_empty() { hub.check(thread) } else { hub.deliver(thread, events) }
                    }
                })
            })
            .clone();
        tokio::time::timeout(Duration::from_secs(1), confirmed.wait_for(|c| *c)).await.ok();
    }

    pub fn listen_for_orders(&self) {
        self.0.orders.get_or_init(|| {
            self.listen("receive orders", vec![self.stop_channel()], |hub, text| {
                if let Some(order) = read(text) {
                    hub.order(order);
                }
            })
        });
    }

    fn listen(&self, name: &'static str, channels: Vec<String>, take: fn(&Hub, &str)) -> watch::Receiver<bool> {
        let (confirm, confirmed) = watch::channel(false);
        let (client, hub) = (self.0.client.clone(), self.0.hub.clone());
        tasks::spawn(name, async move {
            loop {
                if let Err(e) = receive(&client, &channels, &hub, &confirm, take).await {
                    tracing::warn!(error = %e, "the live connection to Redis was lost");
                }
                confirm.send_replace(false);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        confirmed
    }
}

const LOOK: &str = "look:";

fn spell(order: Order) -> String {
    match order {
        Order::Stop(run_id) => run_id.to_string(),
        Order::Look(run_id) => format!("{LOOK}{run_id}"),
    }
}

fn read(text: &str) -> Option<Order> {
    match text.strip_prefix(LOOK) {
        Some(run_id) => run_id.parse().ok().map(Order::Look),
        None => text.parse().ok().map(Order::Stop),
    }
}

async fn receive(
    client: &Client,
    channels: &[String],
    hub: &Hub,
    confirm: &watch::Sender<bool>,
    take: fn(&Hub, &str),
) -> redis::RedisResult<()> {
    let mut subscription = client.get_async_pubsub().await?;
    subscription.subscribe(channels).await?;
    confirm.send_replace(true);
    // What was said while nobody listened here is in the log.
    hub.check_all();
    let mut messages = subscription.into_on_message();
    while let Some(message) = messages.next().await {
        take(hub, &message.get_payload::<String>()?);
    }
    Ok(())
}

/// One connection for all that this process says; what waits goes out in one pipeline.
async fn deliver(client: Client, timeout: Duration, mut outgoing: mpsc::Receiver<(String, String)>) {
    let config =
        redis::aio::ConnectionManagerConfig::new().set_response_timeout(Some(timeout)).set_connection_timeout(Some(timeout));
    let mut connection: Option<ConnectionManager> = None;
    let mut batch = Vec::with_capacity(64);
    while outgoing.recv_many(&mut batch, 64).await > 0 {
        let mut pipeline = redis::pipe();
        for (channel, text) in batch.drain(..) {
            pipeline.publish(channel, text).ignore();
        }
        let sent = async {
            if connection.is_none() {
                connection = Some(client.get_connection_manager_with_config(config.clone()).await?);
            }
            match &mut connection {
                Some(connection) => pipeline.query_async::<()>(connection).await,
                None => Ok(()),
            }
        };
        if let Err(e) = sent.await {
            tracing::warn!(error = %e, "live events were not published; readers find them in the log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_spelled_and_what_is_none_is_left_alone() {
        for order in [Order::Stop(Uuid::nil()), Order::Look(Uuid::nil())] {
            assert_eq!(read(&spell(order)), Some(order));
        }
        assert_eq!((read("look:"), read("from a newer release")), (None, None));
    }
}
