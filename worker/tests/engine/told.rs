//! What tests ask of what a run has told.
use std::{collections::HashMap, time::Duration};

use runmill_shared::{
    domain::{
        agent::{Definition, NewAgent},
        event::{Event, kind},
        run::{Run, RunState},
        run_input::RunOptions,
    },
    services::agents,
};
use runmill_testkit::app::TestApp;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(120);

pub fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|e| e.kind.as_str()).collect()
}

pub fn of_kind<'a>(events: &'a [Event], kind: &str) -> Vec<&'a Event> {
    events.iter().filter(|e| e.kind == kind).collect()
}

pub fn count(events: &[Event], kind: &str) -> usize {
    of_kind(events, kind).len()
}

/// The deltas of a message, joined.
pub fn text(events: &[Event], message_id: &str) -> String {
    let deltas = of_kind(events, kind::TEXT_DELTA).into_iter().filter(|e| e.data["messageId"] == message_id);
    deltas.filter_map(|e| e.data["delta"].as_str()).collect()
}

/// Message ids in the order in which they were started.
pub fn started(events: &[Event]) -> Vec<String> {
    let ids = of_kind(events, kind::MESSAGE_STARTED).into_iter().filter_map(|e| e.data["messageId"].as_str());
    ids.map(str::to_owned).collect()
}

pub fn is_discarded(event: &Event) -> bool {
    event.kind == kind::MESSAGE_FINISHED && event.data["discarded"] == true
}

pub fn has_text(event: &Event, piece: &str) -> bool {
    event.kind == kind::TEXT_DELTA && event.data["delta"].as_str().is_some_and(|d| d.contains(piece))
}

/// The log of a thread whose runs have all ended tells a whole story: every message that was started is closed exactly once and
/// says what its deltas said, and every run ends exactly once, with its last event.
pub fn check(events: &[Event]) {
    let mut open: HashMap<&str, String> = HashMap::new();
    let mut ended = Vec::new();
    for event in events {
        assert!(!ended.contains(&event.run_id), "{event:?} after the end of its run: {:?}", kinds(events));
        let id = event.data["messageId"].as_str().unwrap_or_default();
        match event.kind.as_str() {
            kind::MESSAGE_STARTED => assert!(open.insert(id, String::new()).is_none(), "started twice: {event:?}"),
            kind::TEXT_DELTA => {
                let text = open.get_mut(id).unwrap_or_else(|| panic!("a delta of a message that is not open: {event:?}"));
                text.push_str(event.data["delta"].as_str().unwrap());
            }
            kind::MESSAGE_FINISHED => {
                let text = open.remove(id).unwrap_or_else(|| panic!("closed twice, or never started: {event:?}"));
                assert!(is_discarded(event) || event.data["content"] == text, "{event:?} after {text:?}");
            }
            _ => {}
        }
        if event.is_terminal() {
            ended.push(event.run_id);
        }
    }
    assert!(open.is_empty(), "left open: {open:?} in {:?}", kinds(events));
    let runs: std::collections::HashSet<_> = events.iter().map(|e| e.run_id).collect();
    assert_eq!(runs.len(), ended.len(), "not every run ended: {:?}", kinds(events));
}

/// Waits until the run's row is as wanted.
pub async fn until(app: &TestApp, id: Uuid, wanted: impl Fn(&Run) -> bool) -> Run {
    let begun = std::time::Instant::now();
    loop {
        let run = app.run(id).await.unwrap();
        if wanted(&run) {
            return run;
        }
        assert!(begun.elapsed() < DEADLINE, "{}: the run stays {run:?}", app.name());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn until_state(app: &TestApp, id: Uuid, state: RunState) -> Run {
    until(app, id, |run| run.state == state).await
}

/// An agent of the caller's; the options of a run that it executes.
pub async fn agent(app: &TestApp, definition: Definition) -> RunOptions {
    let tools = runmill_worker::builtin_tools(&app.app.config).unwrap();
    let new = NewAgent { name: "Tested".into(), definition, ..NewAgent::default() };
    let record = agents::create(&app.app, &app.caller, new, &tools).await.unwrap();
    RunOptions { agent_id: Some(record.id.to_string()), agent_version: record.version, ..RunOptions::default() }
}
