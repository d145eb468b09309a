//! What came of a campaign, as tables.
use std::{collections::BTreeMap, time::Duration};

use runmill_testkit::ledger::{EventRow, Ledger};

use crate::{check::Happened, history::Seen};

/// A run that was taken up again later than this after a fault was not waiting for it.
const FARTHEST: Duration = Duration::from_secs(60);

/// How long after a fault the runs that it had interrupted went on, by the kind of the fault.
pub fn recoveries(ledger: &Ledger, faults: &[Happened], began: i64) -> BTreeMap<String, Vec<Duration>> {
    let mut all: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    let starts: Vec<_> = ledger.events.windows(2).filter_map(taken_up).collect();
    for fault in faults {
        let at = began + i64::try_from(fault.from.as_micros()).unwrap_or(i64::MAX);
        let of_fault = all.entry(fault.act.fault.name()).or_default();
        let next = faults.iter().map(|f| f.from).find(|from| *from > fault.from).unwrap_or(Duration::MAX);
        let until = began.saturating_add(i64::try_from(next.min(fault.from + FARTHEST).as_micros()).unwrap_or(i64::MAX));
        // Interrupted: its last event before was told before the fault, and the next one is that it was started again.
        of_fault.extend(
            starts
                .iter()
                .filter(|(before, again)| *before <= at && *again > at && *again < until)
                .map(|(_, again)| Duration::from_micros(u64::try_from(again - at).unwrap_or(0))),
        );
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
        seen.errors.len(),
        seen.broken,
        seen.goals.len(),
        seen.schedules.len(),
        seen.uploads.len(),
        seen.reads.values().map(Vec::len).sum::<usize>(),
    );
}
