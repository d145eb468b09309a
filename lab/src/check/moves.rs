//! Every change of every row, replayed against the protocol: each is one that the model makes, and each goes on where the last one ended.
use std::collections::HashMap;

use runmill_shared::domain::task::{TaskMove, TaskStatus};
use runmill_testkit::{
    ledger::RunRow,
    protocol::{Change, Row},
};
use uuid::Uuid;

use super::Evidence;

/// What one statement made of a run's row.
#[derive(Clone, Debug)]
pub struct RunMove {
    pub run_id: Uuid,
    /// `None`: it was inserted.
    pub before: Option<Row>,
    pub after: Row,
}

/// Another status of a task or an approval.
#[derive(Clone, Debug)]
pub struct StatusMove {
    /// The table.
    pub what: String,
    pub id: Uuid,
    pub before: Option<String>,
    pub after: String,
}

pub fn check(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    let mut rows: HashMap<Uuid, Row> = HashMap::new();
    for step in &evidence.work.moves {
        let last = rows.insert(step.run_id, step.after);
        if last != step.before {
            wrong.push(format!("the row of {} went from {:?} to {:?} unseen", step.run_id, last, step.before));
        }
        if let Some(change) = Change::between(step.before, step.after).filter(|change| !change.is_allowed()) {
            wrong.push(format!("the run {} made a move that the protocol does not have: {change:?}", step.run_id));
        }
    }
    for run in &evidence.ledger.runs {
        ends_there(run, rows.remove(&run.id), wrong);
    }
    // Nobody has asked for anything to be deleted.
    for gone in rows.keys() {
        wrong.push(format!("the run {gone} has a history and no row"));
    }
    statuses(evidence, wrong);
}

fn ends_there(run: &RunRow, row: Option<Row>, wrong: &mut Vec<String>) {
    let is_it =
        |row: &Row| row.form.state.as_str() == run.state && row.counts.fence == run.fence && row.counts.crashes == run.crashes;
    if !row.as_ref().is_some_and(is_it) {
        wrong.push(format!(
            "the history of {} ends with {row:?}, its row is {} with fence {}",
            run.external_id, run.state, run.fence
        ));
    }
}

fn statuses(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    let mut last: HashMap<Uuid, &str> = HashMap::new();
    for step in &evidence.work.statuses {
        let before = last.insert(step.id, &step.after);
        let allowed = before == step.before.as_deref()
            && match step.what.as_str() {
                "approvals" => decides(before, &step.after),
                _ => task_may(before, &step.after),
            };
        if !allowed {
            wrong.push(format!("{} {} went from {:?} to {}, it was {before:?}", step.what, step.id, step.before, step.after));
        }
    }
}

/// Once, from open.
fn decides(before: Option<&str>, after: &str) -> bool {
    match before {
        None => after == "pending",
        Some(before) => before == "pending" && after != "pending",
    }
}

fn task_may(before: Option<&str>, after: &str) -> bool {
    let (Some(before), Some(after)) = (before.map(TaskStatus::parse), TaskStatus::parse(after)) else {
        return before.is_none();
    };
    let leads = |by: &TaskMove| by.table().1 == after && before.is_some_and(|from| by.table().0.contains(&from));
    TaskMove::ALL.iter().any(leads)
}
