//! The protocol of runs as one table: the forms that a run's row can have, and the moves between them. The model of the protocol makes
//! these and no others, and so does the SQL: a test compares each with it. The laboratory reads the history of every row against it.
use std::{collections::HashSet, sync::OnceLock};

use runmill_shared::domain::run::RunState;

/// What a row says beside its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    pub state: RunState,
    /// It may be claimed.
    pub ready: bool,
    /// It names a worker's session.
    pub owned: bool,
    /// Somebody wants it held.
    pub paused: bool,
    /// It waits for being resumed, and for nothing else: by the mark, or because the goal that it drives is held.
    pub held: bool,
}

/// The counters, or how much each has risen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    pub fence: i64,
    pub wake_seq: i64,
    pub attempt: i64,
    pub crashes: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub form: Form,
    pub counts: Counts,
}

/// What one statement does to one row; `before` is `None` for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    pub before: Option<Form>,
    pub after: Form,
    pub risen: Counts,
}

impl Change {
    /// `None` when nothing of this table has changed.
    pub fn between(before: Option<Row>, after: Row) -> Option<Self> {
        if before == Some(after) {
            return None;
        }
        let old = before.map(|row| row.counts).unwrap_or_default();
        let risen = Counts {
            fence: after.counts.fence - old.fence,
            wake_seq: after.counts.wake_seq - old.wake_seq,
            attempt: after.counts.attempt - old.attempt,
            crashes: after.counts.crashes - old.crashes,
        };
        Some(Self { before: before.map(|row| row.form), after: after.form, risen })
    }

    pub fn is_allowed(&self) -> bool {
        table().contains(self)
    }
}

/// All changes of rows that are reached from new ones.
pub fn table() -> &'static HashSet<Change> {
    static TABLE: OnceLock<HashSet<Change>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let (mut changes, mut seen, mut open) = (HashSet::new(), HashSet::new(), vec![None]);
        while let Some(before) = open.pop() {
            for (after, risen) in before.map_or_else(accepted, moves) {
                changes.insert(Change { before, after, risen });
                if seen.insert(after) {
                    open.push(Some(after));
                }
            }
        }
        changes
    })
}

/// Forms that rows can have.
pub fn forms() -> HashSet<Form> {
    table().iter().map(|change| change.after).collect()
}

type Moves = Vec<(Form, Counts)>;

const NOTHING: Counts = Counts { fence: 0, wake_seq: 0, attempt: 0, crashes: 0 };
const FENCE: Counts = Counts { fence: 1, ..NOTHING };
const WAKE: Counts = Counts { wake_seq: 1, ..NOTHING };

/// At the head of its thread and due, or not.
fn accepted() -> Moves {
    let queued = Form { state: RunState::Queued, ready: true, owned: false, paused: false, held: false };
    vec![(queued, NOTHING), (Form { ready: false, ..queued }, NOTHING)]
}

fn moves(row: Form) -> Moves {
    let mut all = match row.state {
        RunState::Queued => queued(row),
        RunState::Running => running(row),
        RunState::Waiting => waiting(row),
        RunState::Succeeded | RunState::Failed | RunState::Cancelled => return Vec::new(),
    };
    // cancel, deadline, the crash limit
    all.extend([RunState::Cancelled, RunState::Failed].map(|state| (ended(row, state), FENCE)));
    if !row.paused {
        all.push((paused(row), NOTHING));
    }
    all
}

fn queued(row: Form) -> Moves {
    let mut all = vec![(row, WAKE)];
    if row.ready {
        all.push((Form { state: RunState::Running, ready: false, owned: true, ..row }, FENCE));
    } else {
        all.push((Form { ready: true, ..row }, NOTHING)); // due, or the thread is handed on to it
    }
    if row.paused {
        all.push((Form { paused: false, ..row }, WAKE));
    }
    all
}

fn running(row: Form) -> Moves {
    let free = Form { owned: false, ..row };
    let back = Form { state: RunState::Queued, ready: true, ..free };
    let mut all = vec![
        (row, WAKE),
        (back, FENCE),                                                   // drain, disown
        (back, Counts { crashes: 1, ..FENCE }),                          // expiry
        (Form { ready: false, ..back }, Counts { attempt: 1, ..FENCE }), // retry
        (Form { state: RunState::Waiting, held: true, ..free }, FENCE),  // its checkpoint has seen the mark, or its goal is held
        (Form { state: RunState::Waiting, ..free }, FENCE),              // park
        (ended(row, RunState::Succeeded), FENCE),
    ];
    if row.paused {
        all.push((Form { paused: false, ..row }, WAKE));
    }
    all
}

fn waiting(row: Form) -> Moves {
    let woken = Form { state: RunState::Queued, ready: true, held: false, ..row };
    let mut all = vec![(woken, WAKE)];
    if row.held && row.paused {
        all.push((Form { paused: false, ..woken }, WAKE));
    } else if row.paused {
        all.push((Form { paused: false, ..row }, WAKE));
    }
    all
}

/// A mark stays what it was.
fn ended(row: Form, state: RunState) -> Form {
    Form { state, ready: false, owned: false, held: false, ..row }
}

fn paused(row: Form) -> Form {
    if row.ready {
        return Form { state: RunState::Waiting, ready: false, paused: true, held: true, ..row };
    }
    Form { paused: true, ..row }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_form_says_hangs_together() {
        for form in forms() {
            assert_eq!(form.owned, form.state == RunState::Running, "{form:?}");
            assert!(!form.ready || form.state == RunState::Queued, "{form:?}");
            assert!(!form.held || form.state == RunState::Waiting, "{form:?}");
        }
        let unknown = table().iter().find(|c| c.risen.fence == 0 && c.before.is_some_and(|b| b.owned) && !c.after.owned);
        assert_eq!(unknown, None, "whatever leaves running raises the fence");
    }

    #[test]
    fn a_change_that_the_table_does_not_have_is_not_allowed() {
        let queued = accepted()[0].0;
        let row = Row { form: queued, counts: NOTHING };
        let running = Form { state: RunState::Running, ready: false, owned: true, ..queued };
        let claimed = |fence| Change::between(Some(row), Row { form: running, counts: Counts { fence, ..NOTHING } }).unwrap();
        assert!(claimed(1).is_allowed() && !claimed(0).is_allowed() && !claimed(2).is_allowed());
        assert_eq!(Change::between(Some(row), row), None);
        let ended = Row { form: ended(running, RunState::Failed), counts: FENCE };
        assert!(!Change::between(Some(ended), row).unwrap().is_allowed());
    }
}
