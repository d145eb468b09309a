//! `/tasks`: what is to be done for a goal, or by itself.
pub(super) mod body;

use poem::web::Data;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
    payload::Json,
};
use runmill_shared::{
    App,
    services::tasks::{self, Filter},
};
use uuid::Uuid;

use self::body::{NewTaskBody, TaskBlockerBody, TaskBody, TaskChangeBody, TaskComment, TaskFailure, TaskResult};
use super::{
    Reply,
    executions::Started,
    page::{Page, Paging},
};
use crate::http::{
    auth::Auth,
    body::{Body, OptionalBody},
    reply::{Created, NoContent},
    trace::Trace,
};

pub struct TasksApi;

#[OpenApi(prefix_path = "/api/v1/tasks")]
impl TasksApi {
    /// Your tasks, newest first; `search` looks into titles and descriptions. `sort`: title, priority, position, created_at, updated_at.
    #[oai(path = "/", method = "get", operation_id = "listTasks")]
    async fn list(
        &self,
        app: Data<&App>,
        caller: Auth,
        paging: Paging,
        goal_id: Query<Option<Uuid>>,
        assignee: Query<Option<String>>,
    ) -> Reply<Json<Page<TaskBody>>> {
        let filter = Filter { goal_id: goal_id.0, assignee: assignee.0 };
        Ok(Json(paging.of(tasks::list(&app, &caller.0, &filter, &paging.0).await?)))
    }

    /// Adds a task, to a goal or by itself. It is ready when all that it depends on is completed.
    #[oai(path = "/", method = "post", operation_id = "createTask")]
    async fn create(&self, app: Data<&App>, caller: Auth, body: Body<NewTaskBody>) -> Reply<Created<TaskBody>> {
        Ok(Created::New(Json(tasks::create(&app, &caller.0, body.0.into()).await?.into())))
    }

    /// What can be claimed now of a goal's tasks, the most urgent first.
    #[oai(path = "/available/:goal_id", method = "get", operation_id = "listAvailableTasks")]
    async fn available(&self, app: Data<&App>, caller: Auth, paging: Paging, goal_id: Path<Uuid>) -> Reply<Json<Page<TaskBody>>> {
        Ok(Json(paging.of(tasks::available(&app, &caller.0, goal_id.0, &paging.0).await?)))
    }

    /// One task.
    #[oai(path = "/:task_id", method = "get", operation_id = "getTask")]
    async fn get(&self, app: Data<&App>, caller: Auth, task_id: Path<Uuid>) -> Reply<Json<TaskBody>> {
        Ok(Json(tasks::get(&app, &caller.0, task_id.0).await?.into()))
    }

    /// Changes what is given. What it depends on and stands below can be changed while it is pending or ready.
    #[oai(path = "/:task_id", method = "put", operation_id = "updateTask")]
    async fn update(
        &self,
        app: Data<&App>,
        caller: Auth,
        task_id: Path<Uuid>,
        body: Body<TaskChangeBody>,
    ) -> Reply<Json<TaskBody>> {
        Ok(Json(tasks::update(&app, &caller.0, task_id.0, body.0.into()).await?.into()))
    }

    /// Deletes it. 409 while somebody is at it, and while others depend on it or stand below it.
    #[oai(path = "/:task_id", method = "delete", operation_id = "deleteTask")]
    async fn remove(&self, app: Data<&App>, caller: Auth, task_id: Path<Uuid>) -> Reply<NoContent> {
        tasks::remove(&app, &caller.0, task_id.0).await?;
        Ok(NoContent::Done)
    }

    /// Takes a ready task for a time; of many at once one gets it, and the others 409.
    #[oai(path = "/:task_id/claim", method = "post", operation_id = "claimTask")]
    async fn claim(&self, app: Data<&App>, caller: Auth, task_id: Path<Uuid>) -> Reply<Json<TaskBody>> {
        Ok(Json(tasks::claim(&app, &caller.0, task_id.0).await?.into()))
    }

    /// Gives a claimed task back.
    #[oai(path = "/:task_id/release", method = "post", operation_id = "releaseTask")]
    async fn release(&self, app: Data<&App>, caller: Auth, task_id: Path<Uuid>) -> Reply<Json<TaskBody>> {
        Ok(Json(tasks::release(&app, &caller.0, task_id.0).await?.into()))
    }

    /// A claimed or running task is done, or to be approved where that is required. An agent that executes it is stopped.
    #[oai(path = "/:task_id/complete", method = "post", operation_id = "completeTask")]
    async fn complete(
        &self,
        app: Data<&App>,
        caller: Auth,
        task_id: Path<Uuid>,
        body: OptionalBody<TaskResult>,
    ) -> Reply<Json<TaskBody>> {
        let result = body.0.and_then(|b| b.result);
        Ok(Json(tasks::complete(&app, &caller.0, task_id.0, result.as_ref()).await?.into()))
    }

    /// A claimed or running task cannot be done. An agent that executes it is stopped.
    #[oai(path = "/:task_id/fail", method = "post", operation_id = "failTask")]
    async fn fail(&self, app: Data<&App>, caller: Auth, task_id: Path<Uuid>, body: Body<TaskFailure>) -> Reply<Json<TaskBody>> {
        Ok(Json(tasks::fail(&app, &caller.0, task_id.0, &body.0.reason).await?.into()))
    }

    /// What is in review is good. A comment is kept in the goal's events.
    #[oai(path = "/:task_id/approve", method = "post", operation_id = "approveTask")]
    async fn approve(
        &self,
        app: Data<&App>,
        caller: Auth,
        task_id: Path<Uuid>,
        body: OptionalBody<TaskComment>,
    ) -> Reply<Json<TaskBody>> {
        let comment = body.0.and_then(|b| b.comment);
        Ok(Json(tasks::approve(&app, &caller.0, task_id.0, comment.as_deref()).await?.into()))
    }

    /// What is in review is not good: it is done again while tries remain, and the next try sees the comment.
    #[oai(path = "/:task_id/reject", method = "post", operation_id = "rejectTask")]
    async fn reject(
        &self,
        app: Data<&App>,
        caller: Auth,
        task_id: Path<Uuid>,
        body: OptionalBody<TaskComment>,
    ) -> Reply<Json<TaskBody>> {
        let comment = body.0.and_then(|b| b.comment);
        Ok(Json(tasks::reject(&app, &caller.0, task_id.0, comment.as_deref()).await?.into()))
    }

    /// A failed or rejected task is to be done again; what failed because of it waits for it again.
    #[oai(path = "/:task_id/retry", method = "post", operation_id = "retryTask")]
    async fn retry(&self, app: Data<&App>, caller: Auth, task_id: Path<Uuid>) -> Reply<Json<TaskBody>> {
        Ok(Json(tasks::retry(&app, &caller.0, task_id.0).await?.into()))
    }

    /// Has an agent execute a task that is ready, or claimed by you: the one that it is assigned to, else the goal's, else your main one.
    #[oai(path = "/:task_id/execute", method = "post", operation_id = "executeTask")]
    async fn execute(&self, app: Data<&App>, trace: Trace, caller: Auth, task_id: Path<Uuid>) -> Reply<Started> {
        Ok(Started::queued(tasks::execute(&app, &caller.0, task_id.0, trace.0).await?.id))
    }

    /// It is not to be done any more. An agent that executes it is stopped.
    #[oai(path = "/:task_id/cancel", method = "post", operation_id = "cancelTask")]
    async fn cancel(&self, app: Data<&App>, caller: Auth, task_id: Path<Uuid>) -> Reply<Json<TaskBody>> {
        Ok(Json(tasks::cancel(&app, &caller.0, task_id.0).await?.into()))
    }

    /// What keeps it from going on: unfinished tasks that it depends on, and decisions that are wanted.
    #[oai(path = "/:task_id/blockers", method = "get", operation_id = "listTaskBlockers")]
    async fn blockers(
        &self,
        app: Data<&App>,
        caller: Auth,
        paging: Paging,
        task_id: Path<Uuid>,
    ) -> Reply<Json<Page<TaskBlockerBody>>> {
        let found = tasks::blockers(&app, &caller.0, task_id.0).await?;
        Ok(Json(paging.cut(found.into_iter().map(TaskBlockerBody::from).collect())))
    }
}
