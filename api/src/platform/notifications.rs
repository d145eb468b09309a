//! `/notifications`: what users are told while they do not look.
use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{
    Enum, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};
use runmill_shared::{
    App,
    domain::notification::{Notification, NotificationKind},
    services::notifications::{self, Filter},
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Reply,
    page::{CursorPage, Paging},
};
use crate::http::{auth::Auth, reply::NoContent};

#[derive(Enum)]
#[oai(rename_all = "snake_case")]
enum NotificationKindName {
    ApprovalWanted,
    /// nobody has decided for too long; administrators are told too
    ApprovalEscalated,
    GoalEnded,
    /// an execution that nobody waited for
    RunEnded,
    SchedulePaused,
    /// from an agent
    Message,
    /// of a channel
    Test,
}

impl From<NotificationKind> for NotificationKindName {
    fn from(kind: NotificationKind) -> Self {
        match kind {
            NotificationKind::ApprovalWanted => Self::ApprovalWanted,
            NotificationKind::ApprovalEscalated => Self::ApprovalEscalated,
            NotificationKind::GoalEnded => Self::GoalEnded,
            NotificationKind::RunEnded => Self::RunEnded,
            NotificationKind::SchedulePaused => Self::SchedulePaused,
            NotificationKind::Message => Self::Message,
            NotificationKind::Test => Self::Test,
        }
    }
}

#[derive(Object)]
struct NotificationBody {
    id: Uuid,
    kind: NotificationKindName,
    /// one line
    title: String,
    body: String,
    /// {type, id} of what it is about: approval, execution, goal, schedule
    subject: Value,
    read: bool,
    read_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl From<Notification> for NotificationBody {
    fn from(n: Notification) -> Self {
        Self {
            id: n.id,
            kind: n.kind.into(),
            title: n.title,
            body: n.body,
            subject: n.subject,
            read: n.read_at.is_some(),
            read_at: n.read_at.map(|t| t.utc()),
            created_at: n.created_at.utc(),
        }
    }
}

#[derive(Object)]
struct NotificationCount {
    count: u64,
}

pub struct NotificationsApi;

#[OpenApi(prefix_path = "/api/v1/notifications")]
impl NotificationsApi {
    /// Yours, newest first. `status` is read or unread, `search` looks into titles; with `cursor` the page goes on where an earlier one
    /// ended.
    #[oai(path = "/", method = "get", operation_id = "listNotifications")]
    async fn list(
        &self,
        app: Data<&App>,
        caller: Auth,
        paging: Paging,
        kind: Query<Option<String>>,
        cursor: Query<Option<String>>,
    ) -> Reply<Json<CursorPage<NotificationBody>>> {
        let filter = Filter { kind: kind.0.as_deref(), cursor: cursor.0.as_deref() };
        let found = notifications::list(&app, &caller.0, &paging.0, filter).await?;
        Ok(Json(paging.with_cursor(found.listed, found.next_cursor)))
    }

    /// How many you have not read.
    #[oai(path = "/unread-count", method = "get", operation_id = "countUnreadNotifications")]
    async fn unread(&self, app: Data<&App>, caller: Auth) -> Reply<Json<NotificationCount>> {
        let count = notifications::unread(&app, &caller.0).await?;
        Ok(Json(NotificationCount { count: count.unsigned_abs() }))
    }

    /// Marks one as read.
    #[oai(path = "/:id/read", method = "put", operation_id = "readNotification")]
    async fn read(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<Json<NotificationBody>> {
        Ok(Json(notifications::read(&app, &caller.0, id.0).await?.into()))
    }

    /// Marks all as read; answers how many were not.
    #[oai(path = "/read-all", method = "put", operation_id = "readAllNotifications")]
    async fn read_all(&self, app: Data<&App>, caller: Auth) -> Reply<Json<NotificationCount>> {
        let count = notifications::read_all(&app, &caller.0).await?;
        Ok(Json(NotificationCount { count: u64::try_from(count).unwrap_or(u64::MAX) }))
    }

    /// Deletes it. What has not been sent through a channel yet is not sent any more.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteNotification")]
    async fn remove(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<NoContent> {
        notifications::remove(&app, &caller.0, id.0).await?;
        Ok(NoContent::Done)
    }
}
