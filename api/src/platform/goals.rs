//! `/goals`: what somebody wants to have done, as tasks that are planned and executed.
mod body;

use poem::web::Data;
use poem_openapi::{Object, OpenApi, param::Path, payload::Json};
use runmill_shared::{App, services::goals};
use uuid::Uuid;

use self::body::{GoalBody, GoalInput, GoalPatch, GoalTaskBody};
use super::{
    Reply,
    chat::{ChatReply, Waiting},
    executions::Started,
    page::{Page, Paging},
};
use crate::{
    Stopping,
    http::{
        auth::Auth,
        body::{Body, OptionalBody, Unchecked},
        patience::Patience,
        reply::{Created, NoContent},
        trace::Trace,
    },
};

#[derive(Object)]
struct ReplanInput {
    /// what the new plan has to heed
    #[oai(validator(min_length = 1, max_length = 10000))]
    instructions: Option<String>,
}

#[derive(Object)]
struct InteractInput {
    #[oai(validator(min_length = 1))]
    message: String,
    /// `goal-{goal_id}-chat` when left out
    #[oai(validator(min_length = 1, max_length = 128))]
    session_id: Option<String>,
}

pub struct GoalsApi;

#[OpenApi(prefix_path = "/api/v1/goals")]
impl GoalsApi {
    /// Your goals, newest first. `sort`: title, created_at, updated_at, deadline.
    #[oai(path = "/", method = "get", operation_id = "listGoals")]
    async fn list(&self, app: Data<&App>, caller: Auth, paging: Paging) -> Reply<Json<Page<GoalBody>>> {
        Ok(Json(paging.of(goals::list(&app, &caller.0, &paging.0).await?)))
    }

    /// Makes a goal: a draft, which nobody works on.
    #[oai(path = "/", method = "post", operation_id = "createGoal")]
    async fn create(&self, app: Data<&App>, caller: Auth, body: Body<GoalInput>) -> Reply<Created<GoalBody>> {
        Ok(Created::New(Json(goals::create(&app, &caller.0, body.0.into()).await?.into())))
    }

    /// A goal and how far it is.
    #[oai(path = "/:goal_id", method = "get", operation_id = "getGoal")]
    async fn get(&self, app: Data<&App>, caller: Auth, goal_id: Path<Uuid>) -> Reply<Json<GoalBody>> {
        Ok(Json(goals::get(&app, &caller.0, goal_id.0).await?.into()))
    }

    /// Changes what is given. A goal that is being executed heeds it from then on.
    #[oai(path = "/:goal_id", method = "put", operation_id = "updateGoal")]
    async fn update(
        &self,
        app: Data<&App>,
        caller: Auth,
        goal_id: Path<Uuid>,
        body: Unchecked<GoalPatch>,
    ) -> Reply<Json<GoalBody>> {
        let current = goals::get(&app, &caller.0, goal_id.0).await?.goal;
        let (input, version) = GoalInput::patched(current, body.0)?;
        Ok(Json(goals::update(&app, &caller.0, goal_id.0, version, input.into()).await?.into()))
    }

    /// Deletes a goal with its tasks. 409 while anybody works on it.
    #[oai(path = "/:goal_id", method = "delete", operation_id = "deleteGoal")]
    async fn delete(&self, app: Data<&App>, caller: Auth, goal_id: Path<Uuid>) -> Reply<NoContent> {
        goals::delete(&app, &caller.0, goal_id.0).await?;
        Ok(NoContent::Done)
    }

    /// Makes a goal active: its tasks can be claimed and executed. Without tasks it is planned first.
    #[oai(path = "/:goal_id/start", method = "post", operation_id = "startGoal")]
    async fn start(&self, app: Data<&App>, trace: Trace, caller: Auth, goal_id: Path<Uuid>) -> Reply<Json<GoalBody>> {
        Ok(Json(goals::start(&app, &caller.0, goal_id.0, trace.0).await?.into()))
    }

    /// Lets running tasks end and starts none.
    #[oai(path = "/:goal_id/pause", method = "post", operation_id = "pauseGoal")]
    async fn pause(&self, app: Data<&App>, caller: Auth, goal_id: Path<Uuid>) -> Reply<Json<GoalBody>> {
        Ok(Json(goals::pause(&app, &caller.0, goal_id.0).await?.into()))
    }

    /// Goes on with a goal that is paused.
    #[oai(path = "/:goal_id/resume", method = "post", operation_id = "resumeGoal")]
    async fn resume(&self, app: Data<&App>, caller: Auth, goal_id: Path<Uuid>) -> Reply<Json<GoalBody>> {
        Ok(Json(goals::resume(&app, &caller.0, goal_id.0).await?.into()))
    }

    /// Ends a goal: what has not ended of its tasks is cancelled, and so is what works on them.
    #[oai(path = "/:goal_id/cancel", method = "post", operation_id = "cancelGoal")]
    async fn cancel(&self, app: Data<&App>, caller: Auth, goal_id: Path<Uuid>) -> Reply<Json<GoalBody>> {
        Ok(Json(goals::cancel(&app, &caller.0, goal_id.0).await?.into()))
    }

    /// Has a goal that has no tasks planned in the background.
    #[oai(path = "/:goal_id/decompose", method = "post", operation_id = "decomposeGoal")]
    async fn decompose(&self, app: Data<&App>, trace: Trace, caller: Auth, goal_id: Path<Uuid>) -> Reply<Started> {
        Ok(Started::queued(goals::decompose(&app, &caller.0, goal_id.0, trace.0).await?.id))
    }

    /// Has what is not done of a goal planned anew in the background.
    #[oai(path = "/:goal_id/replan", method = "post", operation_id = "replanGoal")]
    async fn replan(
        &self,
        app: Data<&App>,
        trace: Trace,
        caller: Auth,
        goal_id: Path<Uuid>,
        body: OptionalBody<ReplanInput>,
    ) -> Reply<Started> {
        let instructions = body.0.and_then(|body| body.instructions);
        Ok(Started::queued(goals::replan(&app, &caller.0, goal_id.0, instructions, trace.0).await?.id))
    }

    /// Starts a goal and executes its tasks in the background until it ends; without tasks it is planned first.
    #[oai(path = "/:goal_id/execute-async", method = "post", operation_id = "executeGoal")]
    async fn execute(&self, app: Data<&App>, trace: Trace, caller: Auth, goal_id: Path<Uuid>) -> Reply<Started> {
        let run = goals::execute_async(&app, &caller.0, goal_id.0, trace.0).await?;
        Ok(Started::of(run.run_id, run.state))
    }

    /// Says something about a goal to its agent, which can change the goal's tasks, and waits for the answer.
    #[oai(path = "/:goal_id/interact", method = "post", operation_id = "interactWithGoal")]
    #[expect(clippy::too_many_arguments, reason = "each is an extractor of the request")]
    async fn interact(
        &self,
        app: Data<&App>,
        patience: Patience,
        stopping: Stopping,
        trace: Trace,
        caller: Auth,
        goal_id: Path<Uuid>,
        body: Body<InteractInput>,
    ) -> Reply<ChatReply> {
        let InteractInput { message, session_id } = body.0;
        let accepted = goals::interact(&app, &caller.0, goal_id.0, message, session_id, trace.0).await?;
        Ok(ChatReply::wait(&Waiting { app: &app, caller: &caller.0, patience, stopping }, &accepted, false).await?)
    }

    /// The goal's tasks as a tree, in the order of its plan.
    #[oai(path = "/:goal_id/tasks", method = "get", operation_id = "getGoalTasks")]
    async fn tasks(&self, app: Data<&App>, caller: Auth, goal_id: Path<Uuid>) -> Reply<Json<Vec<GoalTaskBody>>> {
        Ok(Json(body::tree(goals::tree(&app, &caller.0, goal_id.0).await?)))
    }
}
