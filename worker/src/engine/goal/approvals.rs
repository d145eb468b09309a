//! A person is asked before an agent executes a task. What is asked for is journaled, stored and told in one transaction; the decision
//! is journaled before, or while, it is acted on.
use std::collections::HashMap;

use runmill_shared::{
    domain::{
        approval::{Approval, ApprovalKind, ApprovalStatus, Decision, NewApproval},
        board::Asked,
        event::{NewEvent, kind},
        goal::{Autonomy, Goal},
        run::RunError,
        step::{Step, StepKind},
        task::Task,
    },
    services::{approvals, goals::drive},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Driver;
use crate::engine::Failure;

const APPROVE: &str = "approve";
const REJECTED: &str = "APPROVAL_REJECTED";

fn id(step: &Step, name: &str) -> Option<Uuid> {
    step.intent[name].as_str()?.parse().ok()
}

impl Driver<'_> {
    pub(super) async fn ask(&mut self, goal: &Goal, tasks: &[&Task]) -> Result<(), Failure> {
        if tasks.is_empty() {
            return Ok(());
        }
        let (now, settings) = (self.app.clock.now(), &self.app.config.approvals);
        let (mut events, mut steps, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for task in tasks {
            let key = self.next_key(APPROVE, task.id);
            let reason = format!("an agent is about to execute the task {}", task.title);
            let subject = json!({ "goalId": goal.id, "taskId": task.id, "title": task.title });
            let approval = NewApproval::new(settings, now, ApprovalKind::Task, reason, subject);
            let intent = json!({ "approvalId": approval.id, "taskId": task.id });
            steps.push(self.journal.starting(&key, StepKind::Approval, APPROVE, intent));
            let data = json!({
                "approvalId": approval.id, "reason": approval.reason, "taskId": task.id, "kind": approval.kind.as_str(),
                "expiresAt": approval.expires_at.rfc3339(),
            });
            events.push(NewEvent::new(kind::APPROVAL_REQUESTED, data));
            wanted.push(approval);
        }
        self.journal.commit_asking(events, steps, wanted).await
    }

    /// What people have said to what they were asked last, by task. A task that was refused, and is tried again, is asked about again.
    pub(super) async fn asked(&mut self, goal: &Goal) -> Result<HashMap<Uuid, Asked>, Failure> {
        if goal.autonomy != Autonomy::ApproveEach {
            return Ok(HashMap::new());
        }
        let mut last: HashMap<Uuid, &Step> = HashMap::new();
        for step in self.journal.steps().filter(|s| s.kind == StepKind::Approval) {
            let Some(task) = id(step, "taskId") else { continue };
            if last.get(&task).is_none_or(|known| known.ordinal < step.ordinal) {
                last.insert(task, step);
            }
        }
        let is_open = last.values().any(|s| s.result.is_none());
        let rows = if is_open { approvals::of_run(self.app, &self.journal.run).await? } else { Vec::new() };
        let (mut asked, mut approved) = (HashMap::new(), Vec::new());
        for (task, step) in last {
            let row = rows.iter().find(|a| Some(a.id) == id(step, "approvalId"));
            match (&step.result, row) {
                (Some(decided), _) if decided["decision"] != Decision::Approve.as_str() => continue,
                (None, Some(row)) if row.status == ApprovalStatus::Pending => {
                    asked.insert(task, Asked::Open { approval: row.id, until: row.expires_at });
                    continue;
                }
                (None, Some(row)) if row.status == ApprovalStatus::Approved => {
                    approved.push((step.key.clone(), decided(Some(row)), resolved(task, Some(row))));
                }
                (None, row) => {
                    asked.insert(task, Asked::Refused(refusal(row)));
                    continue;
                }
                (Some(_), _) => {}
            }
            asked.insert(task, Asked::Approved);
        }
        self.take_in(approved).await?;
        Ok(asked)
    }

    async fn take_in(&mut self, approved: Vec<(String, Value, NewEvent)>) -> Result<(), Failure> {
        let (mut steps, mut events) = (Vec::new(), Vec::new());
        for (key, decided, told) in approved {
            steps.push(self.journal.finishing(&key, decided));
            events.push(told);
        }
        if steps.is_empty() { Ok(()) } else { self.journal.commit(events, steps, Vec::new()).await }
    }

    /// With the decision, in one transaction.
    pub(super) async fn refuse(&mut self, goal: &Goal, task: Uuid, why: &RunError) -> Result<(), Failure> {
        let open = |s: &&Step| s.kind == StepKind::Approval && s.result.is_none() && id(s, "taskId") == Some(task);
        let Some(key) = self.journal.steps().find(open).map(|s| s.key.clone()) else { return Ok(()) };
        let decision = if why.code == REJECTED { Decision::Reject.as_str() } else { "expired" };
        self.journal.emit(NewEvent::new(kind::APPROVAL_RESOLVED, json!({ "taskId": task, "decision": decision })));
        let step = self.journal.finishing(&key, json!({ "decision": decision, "comment": why.message }));
        let run = self.journal.run.clone();
        Ok(drive::refuse(self.app, &run, goal.id, task, why, &[step]).await?)
    }
}

fn decided(row: Option<&Approval>) -> Value {
    json!({ "decision": Decision::Approve.as_str(), "comment": row.and_then(|a| a.comment.clone()) })
}

fn resolved(task: Uuid, row: Option<&Approval>) -> NewEvent {
    let mut data = decided(row);
    data["taskId"] = json!(task);
    data["approvalId"] = json!(row.map(|a| a.id));
    NewEvent::new(kind::APPROVAL_RESOLVED, data)
}

/// Why a task is not executed. An approval that is gone counts as expired.
fn refusal(row: Option<&Approval>) -> RunError {
    match row {
        Some(row) if row.status == ApprovalStatus::Rejected => {
            let comment = row.comment.as_deref().filter(|c| !c.is_empty()).map_or(String::new(), |c| format!(": {c}"));
            RunError::new(REJECTED, format!("a person does not want it to be executed{comment}"), false)
        }
        _ => RunError::new("APPROVAL_EXPIRED", "nobody has decided in time whether it may be executed", false),
    }
}
