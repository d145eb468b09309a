//! `/approval`: decisions that runs wait for.
use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{Enum, Object, OpenApi, param::Path, payload::Json};
use runmill_shared::{
    App,
    domain::approval::{Approval, ApprovalKind, ApprovalStatus, Decision},
    services::approvals,
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Reply,
    page::{Page, Paging},
};
use crate::http::{auth::Auth, body::Body};

#[derive(Enum)]
#[oai(rename_all = "lowercase")]
enum ApprovalKindName {
    /// a tool's call needs approval
    Tool,
    /// an agent asks
    Question,
    /// an agent is about to execute a task
    Task,
}

#[derive(Enum)]
#[oai(rename_all = "lowercase")]
enum ApprovalStatusName {
    Pending,
    Approved,
    Rejected,
    /// nobody decided in time
    Expired,
    /// its execution ended before
    Cancelled,
}

#[derive(Object)]
struct ApprovalBody {
    id: Uuid,
    /// the execution that waits
    execution_id: Uuid,
    kind: ApprovalKindName,
    status: ApprovalStatusName,
    /// why a decision is wanted, or the question
    reason: String,
    /// {toolCallId, tool, arguments} of a tool, {toolCallId, question, options} of a question, {goalId, taskId, title} of a task
    subject: Value,
    comment: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    /// nobody had decided for too long: administrators may decide too
    escalated: bool,
    escalated_at: Option<DateTime<Utc>>,
    resolved_at: Option<DateTime<Utc>>,
    /// who decided
    resolved_by: Option<String>,
}

impl From<Approval> for ApprovalBody {
    fn from(a: Approval) -> Self {
        Self {
            id: a.id,
            execution_id: a.run_id,
            kind: match a.kind {
                ApprovalKind::Tool => ApprovalKindName::Tool,
                ApprovalKind::Question => ApprovalKindName::Question,
                ApprovalKind::Task => ApprovalKindName::Task,
            },
            status: match a.status {
                ApprovalStatus::Pending => ApprovalStatusName::Pending,
                ApprovalStatus::Approved => ApprovalStatusName::Approved,
                ApprovalStatus::Rejected => ApprovalStatusName::Rejected,
                ApprovalStatus::Expired => ApprovalStatusName::Expired,
                ApprovalStatus::Cancelled => ApprovalStatusName::Cancelled,
            },
            reason: a.reason,
            subject: a.subject,
            comment: a.comment,
            created_at: a.created_at.utc(),
            expires_at: a.expires_at.utc(),
            escalated: a.escalated_at.is_some(),
            escalated_at: a.escalated_at.map(|t| t.utc()),
            resolved_at: a.resolved_at.map(|t| t.utc()),
            resolved_by: a.resolved_by,
        }
    }
}

#[derive(Enum)]
#[oai(rename_all = "lowercase")]
enum ApprovalDecisionName {
    Approve,
    Reject,
}

#[derive(Object)]
struct ResolveApprovalBody {
    decision: ApprovalDecisionName,
    /// for the agent
    #[oai(validator(max_length = 4000))]
    comment: Option<String>,
}

pub struct ApprovalApi;

#[OpenApi(prefix_path = "/api/v1/approval")]
impl ApprovalApi {
    /// Your approvals, and as an administrator those that were escalated: pending first, then the newest. `status` filters; `search` looks into reasons.
    #[oai(path = "/", method = "get", operation_id = "listApprovals")]
    async fn list(&self, app: Data<&App>, caller: Auth, paging: Paging) -> Reply<Json<Page<ApprovalBody>>> {
        Ok(Json(paging.of(approvals::list(&app, &caller.0, &paging.0).await?)))
    }

    /// Approves or rejects, once; the execution that waits goes on.
    #[oai(path = "/:id/resolve", method = "post", operation_id = "resolveApproval")]
    async fn resolve(
        &self,
        app: Data<&App>,
        caller: Auth,
        id: Path<Uuid>,
        body: Body<ResolveApprovalBody>,
    ) -> Reply<Json<ApprovalBody>> {
        let decision = match body.0.decision {
            ApprovalDecisionName::Approve => Decision::Approve,
            ApprovalDecisionName::Reject => Decision::Reject,
        };
        Ok(Json(approvals::resolve(&app, &caller.0, id.0, decision, body.0.comment.as_deref()).await?.into()))
    }
}
