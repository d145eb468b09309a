//! `/notification-channels`: where else users are told: by e-mail, and at their webhooks.
use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi, param::Path, payload::Json, types::MaybeUndefined};
use runmill_shared::{
    App,
    config::Secret,
    domain::notification::ChannelKind,
    services::{
        model_configs::Patch,
        notification_channels::{self, Change, Channel},
    },
};
use uuid::Uuid;

use super::{
    Reply,
    page::{Page, Paging},
};
use crate::http::{
    auth::Auth,
    body::Body,
    reply::{Created, NoContent},
};

#[derive(Enum)]
#[oai(rename_all = "lowercase")]
enum NotificationChannelKind {
    Email,
    Webhook,
}

#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct NotificationChannelBody {
    id: Uuid,
    name: String,
    kind: NotificationChannelKind,
    /// an address, or a URL
    target: String,
    /// the kinds of notifications that go through it; all when left out
    kinds: Option<Vec<String>>,
    enabled: bool,
    /// what signs a webhook; shown when it is made, and never again
    secret: Option<String>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Channel> for NotificationChannelBody {
    fn from(c: Channel) -> Self {
        Self {
            id: c.id,
            name: c.name,
            kind: match c.kind {
                ChannelKind::Email => NotificationChannelKind::Email,
                ChannelKind::Webhook => NotificationChannelKind::Webhook,
            },
            target: c.target,
            kinds: c.kinds,
            enabled: c.enabled,
            secret: None,
            version: c.version,
            created_at: c.created_at.utc(),
            updated_at: c.updated_at.utc(),
        }
    }
}

#[derive(Object)]
struct NewNotificationChannel {
    /// one of a name
    name: String,
    /// email or webhook
    kind: String,
    /// an address, or an http(s) URL. No private address, unless the operator lists it
    target: String,
    /// approval_wanted, approval_escalated, goal_ended, run_ended, schedule_paused, message; all when left out
    kinds: Option<Vec<String>>,
    /// true when left out
    enabled: Option<bool>,
    /// of a webhook: whsec_ and 24 to 64 bytes in base64; made when left out
    secret: Option<String>,
}

impl From<NewNotificationChannel> for Change {
    fn from(new: NewNotificationChannel) -> Self {
        Self {
            version: None,
            name: Some(new.name),
            kind: Some(new.kind),
            target: Some(new.target),
            kinds: new.kinds.map_or(Patch::Keep, Patch::Set),
            enabled: new.enabled,
            secret: new.secret.map(Secret::new),
        }
    }
}

/// What is left out stays as it is.
#[derive(Object)]
struct NotificationChannelChange {
    /// the version that was read: when it is not the latest any more the answer is 409
    version: Option<i64>,
    name: Option<String>,
    /// cannot be changed
    kind: Option<String>,
    target: Option<String>,
    /// null: all
    kinds: MaybeUndefined<Vec<String>>,
    enabled: Option<bool>,
    /// in place of the one that it has
    secret: Option<String>,
}

impl From<NotificationChannelChange> for Change {
    fn from(change: NotificationChannelChange) -> Self {
        Self {
            version: change.version,
            name: change.name,
            kind: change.kind,
            target: change.target,
            kinds: match change.kinds {
                MaybeUndefined::Undefined => Patch::Keep,
                MaybeUndefined::Null => Patch::Remove,
                MaybeUndefined::Value(kinds) => Patch::Set(kinds),
            },
            enabled: change.enabled,
            secret: change.secret.map(Secret::new),
        }
    }
}

#[derive(Object)]
struct NotificationTestBody {
    execution_id: Uuid,
    /// the same
    task_id: Uuid,
    /// queued
    status: String,
}

#[derive(ApiResponse)]
enum NotificationTested {
    /// `GET /executions/{execution_id}` tells what came of it.
    #[oai(status = 202)]
    Accepted(Json<NotificationTestBody>),
}

pub struct NotificationChannelsApi;

#[OpenApi(prefix_path = "/api/v1/notification-channels")]
impl NotificationChannelsApi {
    /// Yours, newest first; `search` looks into names.
    #[oai(path = "/", method = "get", operation_id = "listNotificationChannels")]
    async fn list(&self, app: Data<&App>, caller: Auth, paging: Paging) -> Reply<Json<Page<NotificationChannelBody>>> {
        Ok(Json(paging.of(notification_channels::list(&app, &caller.0, &paging.0).await?)))
    }

    /// Makes a channel. The answer has the secret of a webhook: it is shown this once.
    #[oai(path = "/", method = "post", operation_id = "createNotificationChannel")]
    async fn create(
        &self,
        app: Data<&App>,
        caller: Auth,
        body: Body<NewNotificationChannel>,
    ) -> Reply<Created<NotificationChannelBody>> {
        let (made, secret) = notification_channels::create(&app, &caller.0, body.0.into()).await?;
        let secret = secret.map(|s| s.expose().to_owned());
        Ok(Created::New(Json(NotificationChannelBody { secret, ..made.into() })))
    }

    /// One of yours.
    #[oai(path = "/:id", method = "get", operation_id = "getNotificationChannel")]
    async fn get(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<Json<NotificationChannelBody>> {
        Ok(Json(notification_channels::get(&app, &caller.0, id.0).await?.into()))
    }

    /// Changes what is given; deliveries that have not been made yet use it as it is then.
    #[oai(path = "/:id", method = "put", operation_id = "updateNotificationChannel")]
    async fn update(
        &self,
        app: Data<&App>,
        caller: Auth,
        id: Path<Uuid>,
        body: Body<NotificationChannelChange>,
    ) -> Reply<Json<NotificationChannelBody>> {
        Ok(Json(notification_channels::update(&app, &caller.0, id.0, body.0.into()).await?.into()))
    }

    /// Deletes it. What was not delivered through it yet never is.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteNotificationChannel")]
    async fn remove(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<NoContent> {
        notification_channels::remove(&app, &caller.0, id.0).await?;
        Ok(NoContent::Done)
    }

    /// Sends a test through it, once.
    #[oai(path = "/:id/test", method = "post", operation_id = "testNotificationChannel")]
    async fn test(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<NotificationTested> {
        let run = notification_channels::test(&app, &caller.0, id.0).await?;
        let body = NotificationTestBody { execution_id: run.id, task_id: run.id, status: "queued".to_owned() };
        Ok(NotificationTested::Accepted(Json(body)))
    }
}
