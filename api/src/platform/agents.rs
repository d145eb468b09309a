//! `/agents`: agents that users define.
pub(super) mod body;

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{OpenApi, param::Path, payload::Json};
use runmill_shared::{App, Error, FieldError, domain::tool::ToolDescriptor, services::agents};
use uuid::Uuid;

use self::body::{AgentBody, AgentInput, AgentPatch, ExportBody, PreviewMessage};
use super::{
    Reply,
    page::{Page, Paging},
};
use crate::http::{
    auth::Auth,
    body::{Body, Unchecked},
    reply::{Created, NoContent},
};

/// The fields of an error, by where they are in a larger body.
fn within(prefix: &str, e: Error) -> Error {
    let at = |f: FieldError| FieldError { field: format!("{prefix}.{}", f.field), message: f.message };
    if e.fields.is_empty() { e } else { Error::invalid_fields(e.fields.into_iter().map(at).collect()) }
}

pub struct AgentsApi {
    pub builtin: Arc<[ToolDescriptor]>,
}

#[OpenApi(prefix_path = "/api/v1/agents")]
impl AgentsApi {
    /// Your agents, and those that others have published; newest first. `sort`: name, created_at, updated_at.
    #[oai(path = "/", method = "get", operation_id = "listAgents")]
    async fn list(&self, app: Data<&App>, caller: Auth, paging: Paging) -> Reply<Json<Page<AgentBody>>> {
        Ok(Json(paging.of(agents::list(&app, &caller.0, &paging.0).await?)))
    }

    /// Makes an agent: a draft, which nobody but you can see.
    #[oai(path = "/", method = "post", operation_id = "createAgent")]
    async fn create(&self, app: Data<&App>, caller: Auth, body: Body<AgentInput>) -> Reply<Created<AgentBody>> {
        Ok(Created::New(Json(agents::create(&app, &caller.0, body.0.into(), &self.builtin).await?.into())))
    }

    /// Makes an agent from what `export` answered: a draft with the same content.
    #[oai(path = "/import", method = "post", operation_id = "importAgent")]
    async fn import(&self, app: Data<&App>, caller: Auth, body: Body<ExportBody>) -> Reply<Created<AgentBody>> {
        let imported = agents::create(&app, &caller.0, body.0.agent.into(), &self.builtin).await;
        Ok(Created::New(Json(imported.map_err(|e| within("agent", e))?.into())))
    }

    /// One agent, as it is now.
    #[oai(path = "/:agent_id", method = "get", operation_id = "getAgent")]
    async fn get(&self, app: Data<&App>, caller: Auth, agent_id: Path<Uuid>) -> Reply<Json<AgentBody>> {
        Ok(Json(agents::get(&app, &caller.0, agent_id.0).await?.into()))
    }

    /// Changes an agent, which adds a version. Runs that were accepted before go on with theirs.
    #[oai(path = "/:agent_id", method = "put", operation_id = "updateAgent")]
    async fn update(
        &self,
        app: Data<&App>,
        caller: Auth,
        agent_id: Path<Uuid>,
        body: Unchecked<AgentPatch>,
    ) -> Reply<Json<AgentBody>> {
        let current = agents::changeable(&app, &caller.0, agent_id.0).await?;
        let (input, version) = AgentInput::patched(current, body.0)?;
        Ok(Json(agents::update(&app, &caller.0, agent_id.0, version, input.into(), &self.builtin).await?.into()))
    }

    /// Deletes an agent with its versions. 409 while runs of it have not ended.
    #[oai(path = "/:agent_id", method = "delete", operation_id = "deleteAgent")]
    async fn delete(&self, app: Data<&App>, caller: Auth, agent_id: Path<Uuid>) -> Reply<NoContent> {
        agents::delete(&app, &caller.0, agent_id.0).await?;
        Ok(NoContent::Done)
    }

    /// Publishes an agent: others may read and run it.
    #[oai(path = "/:agent_id/deploy", method = "post", operation_id = "deployAgent")]
    async fn deploy(&self, app: Data<&App>, caller: Auth, agent_id: Path<Uuid>) -> Reply<Json<AgentBody>> {
        Ok(Json(agents::deploy(&app, &caller.0, agent_id.0).await?.into()))
    }

    /// Stops a published agent: new runs are refused, those under way end as they will.
    #[oai(path = "/:agent_id/stop", method = "post", operation_id = "stopAgent")]
    async fn stop(&self, app: Data<&App>, caller: Auth, agent_id: Path<Uuid>) -> Reply<Json<AgentBody>> {
        Ok(Json(agents::stop(&app, &caller.0, agent_id.0).await?.into()))
    }

    /// Copies an agent: a draft of your own. Of another's agent it leaves out the tools and model configurations that only they have.
    #[oai(path = "/:agent_id/duplicate", method = "post", operation_id = "duplicateAgent")]
    async fn duplicate(&self, app: Data<&App>, caller: Auth, agent_id: Path<Uuid>) -> Reply<Created<AgentBody>> {
        Ok(Created::New(Json(agents::duplicate(&app, &caller.0, agent_id.0, &self.builtin).await?.into())))
    }

    /// An agent's content as a document that `import` takes.
    #[oai(path = "/:agent_id/export", method = "get", operation_id = "exportAgent")]
    async fn export(&self, app: Data<&App>, caller: Auth, agent_id: Path<Uuid>) -> Reply<Json<ExportBody>> {
        Ok(Json(agents::get(&app, &caller.0, agent_id.0).await?.into()))
    }

    /// Makes an agent the one that your runs which name none are executed by.
    #[oai(path = "/:agent_id/create-main-agent", method = "post", operation_id = "createMainAgent")]
    async fn make_main(&self, app: Data<&App>, caller: Auth, agent_id: Path<Uuid>) -> Reply<Json<AgentBody>> {
        Ok(Json(agents::make_main(&app, &caller.0, agent_id.0).await?.into()))
    }

    /// What you and the agent said in its design preview, the session `preview-{agent_id}`; oldest first.
    #[oai(path = "/:agent_id/preview-chat-history", method = "get", operation_id = "previewChatHistory")]
    async fn preview(
        &self,
        app: Data<&App>,
        caller: Auth,
        agent_id: Path<Uuid>,
        paging: Paging,
    ) -> Reply<Json<Page<PreviewMessage>>> {
        Ok(Json(paging.of(agents::preview(&app, &caller.0, agent_id.0, &paging.0).await?)))
    }
}
