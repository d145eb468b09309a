//! What came of a campaign, as tables.
use std::{collections::BTreeMap, time::Duration};

use runmill_testkit::ledger::{EventRow, Ledger};

use crate::{check::Happened, history::Seen};

/// How long after a fault the runs that it had interrupted went on, by the kind of the fault: the first one after the last that was heard
/// of the run before it was started again. A later one may have been the cause; the time is then too long, and never too short.
pub fn recoveries(ledger: &Ledger, faults: &[Happened], began: i64) -> BTreeMap<String, Vec<Duration>> {
    let mut all: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for (before, again) in ledger.events.windows(2).filter_map(taken_up) {
        let at = |fault: &Happened| began + i64::try_from(fault.from.as_micros()).unwrap_or(i64::MAX);
        let Some(fault) = faults.iter().find(|fault| (before..again).contains(&at(fault))) else { continue };
        let took = Duration::from_micros(u64::try_from(again - at(fault)).unwrap_or(0));
        all.entry(fault.act.fault.name()).or_default().push(took);
    }
    all
}

/// The times of an event and of the new start that comes after it.
fn taken_up(two: &[EventRow]) -> Option<(i64, i64)> {
    let [before, after] = two else { return None };
    let is_again = before.thread_id == after.thread_id && before.run_id == after.run_id && before.kind != "run.queued";
    (is_again && after.kind == "run.started").then_some((before.created_at, after.created_at))
}

pub fn print(seen: &Seen, ledger: &Ledger, faults: &[Happened], recoveries: &BTreeMap<String, Vec<Duration>>) {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    faults.iter().for_each(|f| *times.entry(f.act.fault.name()).or_default() += 1);
    println!("\n| fault | times | runs taken up again | p50 s | p90 s | p99 s | worst s |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (name, times) in &times {
        let mut all = recoveries.get(name).cloned().unwrap_or_default();
        all.sort();
        let at = |share: f64| {
            all.get(((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1))).map_or(0.0, Duration::as_secs_f64)
        };
        println!("| {name} | {times} | {} | {:.2} | {:.2} | {:.2} | {:.2} |", all.len(), at(0.5), at(0.9), at(0.99), at(1.0));
    }
    let states = |state: &str| ledger.runs.iter().filter(|r| r.state == state).count();
    println!(
        "\n{} runs: {} succeeded, {} failed, {} cancelled; {} were taken from a dead worker. {} events in {} threads.",
        ledger.runs.len(),
        states("succeeded"),
        states("failed"),
        states("cancelled"),
        ledger.runs.iter().filter(|r| r.crashes > 0).count(),
        ledger.events.len(),
        ledger.heads.len(),
    );
    println!(
        "{} requests were answered, {} of them with a server's error; {} connections broke. {} goals, {} schedules, {} uploads, {} readers.",
        seen.answered,
        seen.errors.iter().filter(|error| error.status.is_some()).count(),
        seen.errors.iter().filter(|error| error.status.is_none()).count(),
        seen.goals.len(),
        seen.schedules.len(),
        seen.uploads.len(),
        seen.reads.values().map(Vec::len).sum::<usize>(),
    );
}
