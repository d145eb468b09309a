//! Questions to people, and runs that are tried again.
use std::collections::HashMap;

use runmill_testkit::ledger::RunRow;
use uuid::Uuid;

use super::Evidence;
use crate::history::Kind;

pub fn check(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    decisions(evidence, wrong);
    questions(evidence, wrong);
    retries(evidence, wrong);
}

/// What was decided is what is stored; the rest has expired, or its run has ended.
fn decisions(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    let stored: HashMap<_, _> = evidence.work.approvals.iter().map(|a| (a.id, a.status.as_str())).collect();
    for decision in &evidence.seen.decisions {
        let decided = if decision.approves { "approved" } else { "rejected" };
        match stored.get(&decision.approval) {
            Some(status) if *status == decided || !decision.taken && *status == "expired" => {}
            status => wrong.push(format!("the approval {} was {decided} and is {status:?}", decision.approval)),
        }
    }
    for open in evidence.work.approvals.iter().filter(|a| a.status == "pending") {
        wrong.push(format!("the approval {} of {} is still wanted", open.id, open.run_id));
    }
    let known: HashMap<_, _> = evidence.seen.decisions.iter().map(|d| (d.approval, d)).collect();
    for alone in evidence.work.approvals.iter().filter(|a| !known.contains_key(&a.id)) {
        if ["approved", "rejected"].contains(&alone.status.as_str()) {
            wrong.push(format!("the approval {} is {} and nobody decided it", alone.id, alone.status));
        }
    }
}

/// Each run has asked as often as it was to, whoever executed it.
fn questions(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    let mut asked: HashMap<Uuid, usize> = HashMap::new();
    evidence.work.approvals.iter().for_each(|a| *asked.entry(a.run_id).or_default() += 1);
    for run in &evidence.ledger.runs {
        let Some(Kind::Agent { asks, .. }) = evidence.seen.runs.get(&run.external_id).map(|r| r.kind) else { continue };
        let asked = asked.get(&run.id).copied().unwrap_or(0);
        if asked != asks {
            wrong.push(format!("{} has asked {asked} times instead of {asks}", run.external_id));
        }
    }
}

/// The tool calls of the run that another one tries again, if it is one that was to fail.
pub fn failed_first(evidence: &Evidence<'_>, first: Uuid) -> Option<usize> {
    let first = evidence.ledger.runs.iter().find(|run| run.id == first)?;
    match evidence.seen.runs.get(&first.external_id)?.kind {
        Kind::Failing { calls } => Some(calls),
        _ => None,
    }
}

/// Each accepted try is there, has succeeded, knows all tool calls of the first and has made none of them again.
fn retries(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    for (id, first) in &evidence.seen.retries {
        let stored = evidence.ledger.runs.iter().find(|run| run.id == *id);
        let of = stored.and_then(|run| evidence.ledger.runs.iter().find(|f| Some(f.id) == run.retry_of));
        if of.is_none_or(|f| f.external_id != *first) {
            wrong.push(format!("the other try {id} of {first} was accepted and is not there"));
        }
    }
    for run in &evidence.ledger.runs {
        if let Some(calls) = run.retry_of.and_then(|first| failed_first(evidence, first)) {
            retried(evidence, run, calls, wrong);
        }
    }
}

fn retried(evidence: &Evidence<'_>, run: &RunRow, calls: usize, wrong: &mut Vec<String>) {
    if run.state != "succeeded" {
        let error = run.error.as_deref().unwrap_or_default();
        wrong.push(format!("{}, tried again, is {}: {error}", run.external_id, run.state));
    }
    let (known, made): (Vec<_>, Vec<_>) =
        evidence.ledger.steps_of(run.id).filter(|step| step.key.starts_with("tool:")).partition(|step| step.fence == 0);
    if known.len() != calls || !made.is_empty() {
        let (known, made) = (known.len(), made.len());
        wrong.push(format!("{}, tried again, knew {known} of {calls} tool calls and made {made} more", run.external_id));
    }
}
