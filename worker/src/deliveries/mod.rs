//! How notifications leave: by e-mail, and to webhooks. Each is delivered at least once: what was sent by a worker that died before it
//! could say so is sent again under the same id.
mod email;
mod webhook;

use std::time::Duration;

use runmill_shared::{App, Result, domain::notification::ChannelKind, services::notifications::Parcel};
use tokio::time::timeout;

use self::email::Mailer;
use crate::{engine::Failure, tools::web::Web};

/// A cheap clone.
#[derive(Clone)]
pub struct Deliveries {
    web: Web,
    /// `None`: no e-mail can be sent here.
    mailer: Option<Mailer>,
    limit: Duration,
}

impl Deliveries {
    /// # Errors
    /// `Invalid` for a setting of `notifications` that is no SMTP URL or no sender.
    pub fn open(app: &App, web: Web) -> Result<Self> {
        let settings = &app.config.notifications;
        Ok(Self { web, mailer: Mailer::open(settings)?, limit: settings.timeout })
    }

    /// Answers the status of the other side.
    pub async fn send(&self, app: &App, parcel: &Parcel) -> Result<u16, Failure> {
        let sent = async {
            match (parcel.channel.kind, &self.mailer) {
                (ChannelKind::Webhook, _) => webhook::send(app, &self.web, parcel).await,
                (ChannelKind::Email, Some(mailer)) => mailer.send(parcel).await,
                (ChannelKind::Email, None) => {
                    Err(Failure::run("EMAIL_UNAVAILABLE", "no e-mail can be sent here; set notifications.smtp_url", false))
                }
            }
        };
        let late = |_| Failure::run("DELIVERY_TIMEOUT", format!("no answer after {:?}", self.limit), true);
        timeout(self.limit, sent).await.map_err(late)?
    }
}
