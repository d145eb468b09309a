//! The checker: what must hold whatever was broken. It reads the whole history and the whole database, not a sample, and knows nothing
//! of the product but its contract. A pure function: its own test plants bugs and sees each of them caught.
mod moves;
mod people;
mod work;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use runmill_testkit::ledger::{EventRow, Ledger, RunRow, StepRow};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    history::{Kind, Offer, Read, Seen},
    plan::Act,
};

pub use self::moves::{RunMove, StatusMove};
pub use self::work::{ApprovalRow, Blob, FireRow, GoalRow, TaskRow, Work};

/// After a fault has ended, the system may be at fault for this much longer: leases lapse, servers recover, pools reconnect.
const AFTERMATH: Duration = Duration::from_secs(6);

/// Everything there is to judge by.
pub struct Evidence<'a> {
    pub seen: &'a Seen,
    pub ledger: &'a Ledger,
    pub work: &'a Work,
    /// With the times at which they really began, and ended.
    pub faults: &'a [Happened],
    /// How often each journaled tool call reached its server, by its idempotency key.
    pub tool_calls: &'a HashMap<String, usize>,
    /// Hints that are left in the queue.
    pub hints: usize,
}

/// A fault as it came: from the beginning of the load.
#[derive(Clone, Debug)]
pub struct Happened {
    pub act: Act,
    pub from: Duration,
    pub until: Duration,
}

/// What is wrong; empty when nothing is.
pub fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let mut wrong = evidence.seen.wrong.clone();
    let events = by_run(evidence.ledger);
    offers(evidence, &mut wrong);
    for run in &evidence.ledger.runs {
        let of_run = events.get(&run.id).map_or(&[][..], Vec::as_slice);
        ends(run, of_run, &mut wrong);
        steps(evidence.ledger, run, of_run, &mut wrong);
    }
    numbers(evidence.ledger, &mut wrong);
    readers(evidence, &mut wrong);
    left_over(evidence, &mut wrong);
    causes(evidence, &mut wrong);
    offered(evidence, &mut wrong);
    cancels(evidence, &mut wrong);
    tool_calls(evidence, &mut wrong);
    for write in &evidence.work.stale {
        wrong.push(format!("an execution that was replaced has written: {write}"));
    }
    moves::check(evidence, &mut wrong);
    people::check(evidence, &mut wrong);
    work::check(evidence, &mut wrong);
    wrong
}

fn by_run(ledger: &Ledger) -> HashMap<Uuid, Vec<&EventRow>> {
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    for event in &ledger.events {
        all.entry(event.run_id).or_default().push(event);
    }
    all
}

/// What was accepted is there; what was refused is not; what is there was asked for.
fn offers(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    let stored: HashMap<_, _> = evidence.ledger.runs.iter().map(|run| (run.external_id.as_str(), run)).collect();
    for (name, asked) in &evidence.seen.runs {
        match (&asked.offer, stored.get(name.as_str())) {
            (Offer::Accepted(id), None) => wrong.push(format!("{name} ({id}) was accepted and is not there")),
            (Offer::Accepted(id), Some(run)) if run.id != *id => {
                wrong.push(format!("{name} was accepted as {id} and is {}", run.id))
            }
            (Offer::Refused(status), Some(_)) => wrong.push(format!("{name} was refused with {status} and is there")),
            (_, Some(run)) => outcome(evidence.ledger, name, asked.kind, run, wrong),
            _ => {}
        }
    }
    for run in &evidence.ledger.runs {
        if run.parent_run_id.is_none() && !evidence.seen.runs.contains_key(&run.external_id) && !work::is_known(evidence, run) {
            wrong.push(format!("nobody asked for the run {} ({})", run.external_id, run.kind));
        }
    }
}

fn outcome(ledger: &Ledger, name: &str, kind: Kind, run: &RunRow, wrong: &mut Vec<String>) {
    // The cancel may have come too late.
    let (allowed, calls): (&[&str], _) = match kind {
        Kind::Agent { asks, calls } => (&["succeeded"], Some(asks + calls)),
        Kind::Cancelled => (&["succeeded", "cancelled"], None),
        Kind::Failing { calls } => (&["failed"], Some(calls)),
    };
    let made = ledger.steps_of(run.id).filter(|step| step.key.starts_with("tool:")).count();
    if let Some(calls) = calls.filter(|calls| *calls != made) {
        wrong.push(format!("{name} has {made} tool calls in its journal, {calls} were asked for"));
    }
    if !allowed.contains(&run.state.as_str()) {
        wrong.push(format!("{name} is {}: {}", run.state, run.error.as_deref().unwrap_or_default()));
    }
}

fn is_terminal(event: &EventRow) -> bool {
    match event.kind.as_str() {
        "run.finished" | "run.cancelled" => true,
        "run.failed" => event.data["willRetry"] == json!(false),
        _ => false,
    }
}

/// Queued once and first, ended once and last, and nobody wrote who had been replaced.
fn ends(run: &RunRow, events: &[&EventRow], wrong: &mut Vec<String>) {
    let name = &run.external_id;
    let ends = events.iter().filter(|e| is_terminal(e)).count();
    let queued = events.iter().filter(|e| e.kind == "run.queued").count();
    if !["succeeded", "failed", "cancelled"].contains(&run.state.as_str()) {
        wrong.push(format!("{name} has not ended: it is {}", run.state));
    } else if ends != 1 || !events.last().is_some_and(|e| is_terminal(e)) {
        wrong.push(format!("{name} has {ends} ends: {:?}", kinds(events)));
    }
    if queued != 1 || events.first().is_none_or(|e| e.kind != "run.queued") {
        wrong.push(format!("{name} was not queued once and first: {:?}", kinds(events)));
    }
    // Events of nobody's execution have no fence.
    let fences: Vec<_> = events.iter().map(|e| e.fence).filter(|fence| *fence > 0).collect();
    if !fences.is_sorted() {
        wrong.push(format!("{name}: an execution that was replaced has written: {fences:?}"));
    }
    if run.lease_owner.is_some() {
        wrong.push(format!("{name} has a lease after its end"));
    }
}

fn kinds<'a>(events: &[&'a EventRow]) -> Vec<&'a str> {
    events.iter().map(|e| e.kind.as_str()).collect()
}

/// A step that was finished was finished once: its result was told once, and no later execution said it anew.
fn steps(ledger: &Ledger, run: &RunRow, events: &[&EventRow], wrong: &mut Vec<String>) {
    let mut told: HashMap<(&str, &str), usize> = HashMap::new();
    for event in events {
        let id = match event.kind.as_str() {
            "tool.finished" => event.data["toolCallId"].as_str(),
            "message.finished" if event.data["discarded"] != json!(true) => event.data["messageId"].as_str(),
            _ => None,
        };
        if let Some(id) = id {
            *told.entry((event.kind.as_str(), id)).or_default() += 1;
        }
    }
    for ((kind, id), times) in told.iter().filter(|(_, times)| **times > 1) {
        wrong.push(format!("{}: {kind} of {id} was told {times} times", run.external_id));
    }
    if run.state == "succeeded" {
        let open = ledger.steps_of(run.id).filter(|step| step.status != "finished").count();
        if open > 0 {
            wrong.push(format!("{} succeeded with {open} steps open", run.external_id));
        }
        // What another try took over (fence 0) was told by the first.
        let answers = ledger.steps_of(run.id).filter(|step| step.key.starts_with("model:") && step.fence > 0).count();
        let said = told.keys().filter(|(kind, _)| *kind == "message.finished").count();
        if run.kind == "agent" && answers != said {
            wrong.push(format!("{} journaled {answers} answers and told {said}", run.external_id));
        }
    }
}

/// Each thread's log is 1, 2, 3 … to its head.
fn numbers(ledger: &Ledger, wrong: &mut Vec<String>) {
    let mut seqs: HashMap<Uuid, Vec<i64>> = HashMap::new();
    for event in &ledger.events {
        seqs.entry(event.thread_id).or_default().push(event.seq);
    }
    for head in &ledger.heads {
        let seqs = seqs.remove(&head.thread_id).unwrap_or_default();
        if !seqs.iter().copied().eq(1..=head.last_seq) {
            let hole = (1..=head.last_seq).find(|n| !seqs.contains(n));
            wrong.push(format!(
                "thread {}: {} events to number {}, first hole {hole:?}",
                head.thread_id,
                seqs.len(),
                head.last_seq
            ));
        }
        if let Some(run) = head.head_run_id {
            wrong.push(format!("thread {} is still given to the run {run}", head.thread_id));
        }
    }
    for thread in seqs.keys() {
        wrong.push(format!("thread {thread} has events and no head"));
    }
}

/// Each reader got the log: from its beginning, without a hole, to the end if the stream said so.
fn readers(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    let threads: HashMap<_, _> = evidence.ledger.runs.iter().map(|run| (run.thread.as_str(), run.thread_id)).collect();
    let mut logs: HashMap<Uuid, Vec<&EventRow>> = HashMap::new();
    for event in &evidence.ledger.events {
        logs.entry(event.thread_id).or_default().push(event);
    }
    for (thread, reads) in &evidence.seen.reads {
        let log = threads.get(thread.as_str()).and_then(|id| logs.get(id));
        for read in reads {
            if let Some(what) = differs(read, log.map_or(&[][..], Vec::as_slice)) {
                wrong.push(format!("a reader of {thread}: {what}"));
            }
        }
    }
}

fn differs(read: &Read, log: &[&EventRow]) -> Option<String> {
    for (i, frame) in read.frames.iter().enumerate() {
        let is_it = |event: &&&EventRow| {
            event.seq == frame.id && event.kind == frame.kind && event.run_id == frame.run_id && event.data == frame.data
        };
        if log.get(i).filter(is_it).is_none() {
            return Some(format!("its frame {} is {frame:?}, the log has {:?}", i + 1, log.get(i)));
        }
    }
    (read.ended && read.frames.len() != log.len())
        .then(|| format!("it was told the end after {} of {} events", read.frames.len(), log.len()))
}

fn left_over(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    if evidence.ledger.outbox > 0 {
        wrong.push(format!("{} notices were not applied", evidence.ledger.outbox));
    }
    if evidence.hints > 0 {
        wrong.push(format!("{} hints are left in the queue", evidence.hints));
    }
}

/// Every 5xx, and every connection that broke, has a cause in the plan: a fault that can have it overlaps with the request, or has just
/// ended. That a server is at fault itself (500) has none.
fn causes(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    for error in &evidence.seen.errors {
        let began = error.at.saturating_sub(error.took);
        let (waits, stores) = (error.what.contains("/transcribe"), error.what.contains("/attachments"));
        let can = |f: &Happened| f.act.fault.may_fail(error.api, waits, stores || waits);
        let excused = evidence.faults.iter().any(|f| f.from <= error.at && began <= f.until + AFTERMATH && can(f));
        if error.status == Some(500) || !excused {
            let answered = error.status.map_or_else(|| "did not answer".to_owned(), |status| format!("answered {status}"));
            let (at, took) = (error.at.as_secs_f64(), error.took.as_secs_f64());
            wrong.push(format!(
                "{} {answered} from api {} at {at:.1} s, after {took:.1} s, without a cause",
                error.what, error.api
            ));
        }
    }
}

/// What a campaign has to have had: a check of nothing passes.
fn offered(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    let seen = evidence.seen;
    let has = |kind: fn(&Kind) -> bool| seen.runs.values().any(|run| kind(&run.kind));
    let all = [
        ("run with tool calls", has(|kind| matches!(kind, Kind::Agent { calls: 1.., .. })) && !evidence.tool_calls.is_empty()),
        ("cancelled run", has(|kind| *kind == Kind::Cancelled) && !seen.cancelled.is_empty()),
        ("run that was tried again", !seen.retries.is_empty()),
        ("decision", seen.decisions.iter().any(|d| d.taken)),
        ("reader to the end", seen.reads.values().flatten().any(|read| read.ended)),
        ("upload", seen.uploads.iter().any(|upload| upload.path.is_some())),
        ("transcript", seen.transcripts > 0),
        ("goal", seen.goals.iter().any(|goal| goal.started)),
        ("schedule", !seen.schedules.is_empty()),
        ("fault", !evidence.faults.is_empty()),
    ];
    for (what, _) in all.iter().filter(|(_, there)| !there) {
        wrong.push(format!("there was no {what}: the campaign shows nothing"));
    }
}

/// What was answered to a cancel is how the run has ended.
fn cancels(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    for (name, told) in &evidence.seen.cancelled {
        let state = evidence.ledger.run(name).map(|run| run.state.as_str());
        if state != Some(told) {
            wrong.push(format!("the cancel of {name} was answered with {told}, it is {state:?}"));
        }
    }
}

/// Each tool call in a journal reached its server once, if its result says so, and at most once if it says that this is unknown; the
/// server got no others.
fn tool_calls(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    let ledger = evidence.ledger;
    let mut journaled = HashSet::new();
    // What another try took over (fence 0) the first has called.
    for step in ledger.steps.iter().filter(|s| s.key.starts_with("tool:") && s.key.contains(":http_request:") && s.fence > 0) {
        let key = format!("{}:{}", step.run_id, step.key);
        let calls = evidence.tool_calls.get(&key).copied().unwrap_or(0);
        let result: Value = step.result.as_deref().and_then(|result| serde_json::from_str(result).ok()).unwrap_or_default();
        let right = if result.get("ok").is_some() { calls == 1 } else { calls <= 1 && is_unknown(ledger, step, &result) };
        if !right {
            wrong.push(format!("the tool call {key} reached its server {calls} times, its result is {result}"));
        }
        journaled.insert(key);
    }
    for (key, calls) in evidence.tool_calls.iter().filter(|(key, _)| !journaled.contains(*key)) {
        wrong.push(format!("the tool call {key} was made {calls} times and is in no journal"));
    }
}

/// Whether it says that nobody knows what came of it, in a run whose worker was lost or stopped; or it was open when its run was ended.
fn is_unknown(ledger: &Ledger, step: &StepRow, result: &Value) -> bool {
    let starts = ledger.events_of(step.run_id).filter(|e| e.kind == "run.started").count();
    let is_cancelled = || ledger.runs.iter().any(|run| run.id == step.run_id && run.state == "cancelled");
    if step.status == "started" { is_cancelled() } else { result["error"]["code"] == "OUTCOME_UNKNOWN" && starts > 1 }
}

#[cfg(test)]
mod tests;
