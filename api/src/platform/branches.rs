//! `/agent-chat/branches`: second ways on from a message of a session.
use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{
    Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};
use runmill_shared::{
    App,
    services::branches::{self, Branch, Wanted},
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

#[derive(Object)]
struct NewBranchBody {
    session_id: String,
    /// the last message of the session that the branch has
    message_id: String,
    /// the message's id when left out
    #[oai(validator(min_length = 1, max_length = 100))]
    name: Option<String>,
}

#[derive(Object)]
struct BranchBody {
    id: Uuid,
    /// the branch's own: chat with it to go on from there
    session_id: String,
    parent_session_id: String,
    message_id: String,
    name: String,
    /// who answers in it
    agent_id: Option<String>,
    created_at: DateTime<Utc>,
}

impl From<Branch> for BranchBody {
    fn from(b: Branch) -> Self {
        Self {
            id: b.id,
            session_id: b.session,
            parent_session_id: b.parent_session,
            message_id: b.message_id,
            name: b.name,
            agent_id: b.agent_id,
            created_at: b.created_at.utc(),
        }
    }
}

pub struct BranchesApi;

#[OpenApi(prefix_path = "/api/v1/agent-chat/branches")]
impl BranchesApi {
    /// Forks a session at a message. The branch has what was said up to it; what either says from then on, the other does not see.
    #[oai(path = "/", method = "post", operation_id = "createBranch")]
    async fn create(&self, app: Data<&App>, caller: Auth, body: Body<NewBranchBody>) -> Reply<Created<BranchBody>> {
        let NewBranchBody { session_id, message_id, name } = body.0;
        let wanted = Wanted { session: &session_id, message_id: &message_id, name: name.as_deref() };
        Ok(Created::New(Json(branches::create(&app, &caller.0, wanted).await?.into())))
    }

    /// Your branches, newest first; those of one session when it is named. `sort`: name, created_at.
    #[oai(path = "/", method = "get", operation_id = "listBranches")]
    async fn list(
        &self,
        app: Data<&App>,
        caller: Auth,
        paging: Paging,
        session_id: Query<Option<String>>,
    ) -> Reply<Json<Page<BranchBody>>> {
        Ok(Json(paging.of(branches::list(&app, &caller.0, session_id.0.as_deref(), &paging.0).await?)))
    }

    /// One branch.
    #[oai(path = "/:branch_id", method = "get", operation_id = "getBranch")]
    async fn get(&self, app: Data<&App>, caller: Auth, branch_id: Path<Uuid>) -> Reply<Json<BranchBody>> {
        Ok(Json(branches::get(&app, &caller.0, branch_id.0).await?.into()))
    }

    /// Deletes a branch with its session. 409 while a run of it has not ended, and while other branches go out from it.
    #[oai(path = "/:branch_id", method = "delete", operation_id = "deleteBranch")]
    async fn delete(&self, app: Data<&App>, caller: Auth, branch_id: Path<Uuid>) -> Reply<NoContent> {
        branches::delete(&app, &caller.0, branch_id.0).await?;
        Ok(NoContent::Done)
    }
}
