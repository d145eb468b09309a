//! The goal is planned by a run of its own, which this one waits for.
use runmill_shared::{
    Error,
    domain::{
        board::Planned,
        goal::Goal,
        new_id,
        run::{RunError, RunKind, RunState, Watcher},
        step::StepKind,
    },
    jobs::GoalPlan,
    services::{
        goals::drive,
        runs::execution::{self, Child},
    },
};
use serde_json::json;
use uuid::Uuid;

use super::Driver;
use crate::engine::Failure;

const PLAN: &str = "plan";
/// Somebody else has planned it meanwhile: what they did is as good.
const OUTDATED: &str = "PLAN_OUTDATED";

impl Driver<'_> {
    pub(super) async fn plan(&mut self, goal: &Goal, anew: bool) -> Result<(), Failure> {
        let run = self.journal.run.clone();
        let (id, key) = (new_id(), self.next_key(PLAN, goal.id));
        let input =
            GoalPlan { goal_id: goal.id, plan_version: goal.plan_version, replan: anew, activate: true, instructions: None };
        let child = Child {
            id,
            kind: RunKind::GoalPlan,
            input: serde_json::to_string(&input).map_err(Error::from)?,
            messages: Vec::new(),
            agent_id: goal.agent_id.clone(),
            model: None,
            watcher: Some(Watcher::Plan),
        };
        let step = self.journal.starting(&key, StepKind::Child, PLAN, json!({ "childRunId": id, "anew": anew }));
        if !drive::plan(self.app, &run, goal, &child, &[step]).await? {
            self.journal.abandoning(&key);
        }
        Ok(())
    }

    /// How often this run has had the goal planned anew.
    pub(super) fn replans(&self) -> u32 {
        let anew = self.journal.steps().filter(|s| s.name == PLAN && s.intent["anew"] == true).count();
        u32::try_from(anew).unwrap_or(u32::MAX)
    }

    /// What became of the plan that has been ordered; journaled when its run has ended. A failure is for good.
    pub(super) async fn planned(&mut self) -> Result<Option<Planned>, Failure> {
        let last = self.journal.steps().filter(|s| s.kind == StepKind::Child && s.name == PLAN).max_by_key(|s| s.ordinal);
        let Some((key, child)) = last.and_then(|s| Some((s.key.clone(), s.intent["childRunId"].as_str()?.parse::<Uuid>().ok()?)))
        else {
            return Ok(None);
        };
        if let Some(known) = self.journal.finished(&key) {
            return Ok(serde_json::from_value(known["failed"].clone()).ok().map(Planned::Failed));
        }
        let outcomes = execution::outcomes(self.app, &[child]).await?;
        let failed = match outcomes.first() {
            Some(o) if !o.state.is_ended() => return Ok(Some(Planned::UnderWay(child))),
            Some(o) if o.state == RunState::Succeeded => None,
            Some(o) if o.state == RunState::Failed => {
                let unknown = || RunError::new("PLAN_FAILED", "the goal could not be planned", false);
                o.error.clone().or_else(|| Some(unknown())).filter(|e| e.code != OUTDATED)
            }
            Some(_) => Some(RunError::new("PLAN_CANCELLED", "the planning of the goal was cancelled", false)),
            None => Some(RunError::new("PLAN_FAILED", "the run that plans the goal is gone", false)),
        };
        let step = self.journal.finishing(&key, json!({ "failed": failed }));
        self.journal.commit(Vec::new(), vec![step], Vec::new()).await?;
        Ok(failed.map(Planned::Failed))
    }
}
