//! What follows for the tasks of a goal from how the others stand, and whether they can be put as somebody wants them.
use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::task::{STARVED, Task, TaskMove, TaskStatus};

/// Whether a task with this status keeps those that depend on it from ever being done, unless somebody has it tried again.
fn is_lost(status: TaskStatus) -> bool {
    matches!(status, TaskStatus::Failed | TaskStatus::Rejected | TaskStatus::Cancelled)
}

fn is_starved(task: &Task) -> bool {
    task.status == TaskStatus::Failed && task.error.as_ref().is_some_and(|e| e.code == STARVED)
}

/// The moves that follow, in the order in which they are made, each with the tasks that it is for. Pending tasks become ready when all
/// that they depend on is completed, and fail when some of it cannot be any more; ready ones that depend on something new wait for it;
/// those that failed only because of others wait again when the others do.
pub fn settle(tasks: &[Task]) -> Vec<(TaskMove, Vec<Uuid>)> {
    use TaskStatus as S;
    let mut now: HashMap<Uuid, S> = tasks.iter().map(|t| (t.id, t.status)).collect();
    // What one round says of a task can change what is said of those that depend on it: as many rounds as the longest chain.
    for _ in 0..=tasks.len() {
        let mut changed = false;
        for task in tasks {
            let status = now[&task.id];
            let follows = follows(task, status, &now);
            changed |= follows != status;
            now.insert(task.id, follows);
        }
        if !changed {
            break;
        }
    }
    let mut moves = [TaskMove::Retry, TaskMove::Block, TaskMove::Starve, TaskMove::Unblock].map(|by| (by, Vec::new()));
    for task in tasks {
        let way: &[usize] = match (task.status, now[&task.id]) {
            (S::Failed, S::Pending) => &[0],
            (S::Failed, S::Ready) => &[0, 3],
            (S::Ready, S::Pending) => &[1],
            (S::Ready, S::Failed) => &[1, 2],
            (S::Pending, S::Failed) => &[2],
            (S::Pending, S::Ready) => &[3],
            _ => &[],
        };
        way.iter().for_each(|i| moves[*i].1.push(task.id));
    }
    moves.into_iter().filter(|(_, ids)| !ids.is_empty()).collect()
}

fn follows(task: &Task, status: TaskStatus, now: &HashMap<Uuid, TaskStatus>) -> TaskStatus {
    let waits = match status {
        TaskStatus::Pending | TaskStatus::Ready => true,
        TaskStatus::Failed => is_starved(task) || task.status != TaskStatus::Failed,
        _ => false,
    };
    if !waits {
        return status;
    }
    let on: Vec<_> = task.depends_on.iter().filter_map(|id| now.get(id).copied()).collect();
    if on.iter().any(|s| is_lost(*s)) {
        TaskStatus::Failed
    } else if on.iter().all(|s| *s == TaskStatus::Completed) {
        TaskStatus::Ready
    } else {
        TaskStatus::Pending
    }
}

/// How a task of `tasks` that is to depend on `depends_on` comes to depend on itself: the ids from the first of these to the task.
pub fn cycle(tasks: &[Task], task: Uuid, depends_on: &[Uuid]) -> Option<Vec<Uuid>> {
    let edges: HashMap<Uuid, &[Uuid]> = tasks.iter().map(|t| (t.id, &t.depends_on[..])).collect();
    let mut seen = HashSet::new();
    let mut ways: Vec<Vec<Uuid>> = depends_on.iter().map(|id| vec![*id]).collect();
    while let Some(way) = ways.pop() {
        let Some(last) = way.last().copied() else { continue };
        if last == task {
            return Some(way);
        }
        if seen.insert(last) {
            let on = edges.get(&last).copied().unwrap_or_default();
            ways.extend(on.iter().map(|id| way.iter().copied().chain([*id]).collect()));
        }
    }
    None
}

/// How deep a task would stand under `parent`, with what is below it; `None` where it would stand below itself. A task without a parent
/// is at depth 1.
pub fn depth_under(tasks: &[Task], task: Uuid, parent: Option<Uuid>) -> Option<usize> {
    let parents: HashMap<Uuid, Option<Uuid>> = tasks.iter().map(|t| (t.id, t.parent_id)).collect();
    let mut above = 0;
    let mut at = parent;
    while let Some(id) = at {
        if id == task || above > tasks.len() {
            return None;
        }
        above += 1;
        at = parents.get(&id).copied().flatten();
    }
    let mut height = 0;
    let mut level = vec![task];
    while !level.is_empty() && height <= tasks.len() {
        height += 1;
        level = tasks.iter().filter(|t| t.parent_id.is_some_and(|p| level.contains(&p))).map(|t| t.id).collect();
    }
    Some(above + height)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{clock::Timestamp, domain::run::RunError};

    fn id(n: usize) -> Uuid {
        Uuid::from_u128(n as u128 + 1)
    }

    fn task(n: usize, status: TaskStatus, depends_on: &[usize]) -> Task {
        let time = Timestamp(0);
        Task {
            id: id(n),
            owner: "me".into(),
            goal_id: Some(id(1000)),
            parent_id: None,
            key: format!("t{n}"),
            title: format!("t{n}"),
            description: String::new(),
            status,
            priority: 0,
            position: i64::try_from(n).unwrap_or(0),
            assignee: None,
            requires_approval: false,
            depends_on: depends_on.iter().map(|n| id(*n)).collect(),
            result: None,
            error: None,
            attempt: 0,
            max_attempts: 1,
            claimed_by: None,
            claim_expires_at: None,
            run_id: None,
            usage: Default::default(),
            version: 1,
            created_at: time,
            updated_at: time,
            started_at: None,
            finished_at: None,
        }
    }

    fn starved(n: usize, depends_on: &[usize]) -> Task {
        Task { error: Some(RunError::new(STARVED, "", false)), ..task(n, TaskStatus::Failed, depends_on) }
    }

    #[test]
    fn what_follows_goes_down_the_whole_chain() {
        use TaskStatus as S;
        let moves = settle(&[
            task(0, S::Completed, &[]),
            task(1, S::Pending, &[0]),
            task(2, S::Failed, &[]),
            task(3, S::Pending, &[4]),
            task(4, S::Pending, &[2]),
            task(5, S::Ready, &[1]),
            task(6, S::Ready, &[2]),
            starved(7, &[0]),
            starved(8, &[1]),
            starved(9, &[3]),
            task(10, S::Completed, &[1]),
        ]);
        let expected = [
            (TaskMove::Retry, vec![id(7), id(8)]),
            (TaskMove::Block, vec![id(5), id(6)]),
            (TaskMove::Starve, vec![id(3), id(4), id(6)]),
            (TaskMove::Unblock, vec![id(1), id(7)]),
        ];
        assert_eq!(moves, expected);
    }

    #[test]
    fn a_way_back_to_the_task_is_found() {
        let all = [task(0, TaskStatus::Ready, &[]), task(1, TaskStatus::Pending, &[0]), task(2, TaskStatus::Pending, &[1])];
        assert_eq!(cycle(&all, id(0), &[id(2)]), Some(vec![id(2), id(1), id(0)]));
        assert_eq!(cycle(&all, id(0), &[id(0)]), Some(vec![id(0)]));
        assert_eq!(cycle(&all, id(2), &[id(0), id(1)]), None);
    }

    #[test]
    fn a_tree_has_a_depth_and_no_loop() {
        let mut all = [0, 1, 2, 3].map(|n| task(n, TaskStatus::Ready, &[]));
        all[1].parent_id = Some(id(0));
        all[2].parent_id = Some(id(1));
        assert_eq!(depth_under(&all, id(3), Some(id(2))), Some(4));
        assert_eq!(depth_under(&all, id(0), Some(id(3))), Some(4));
        assert_eq!(depth_under(&all, id(3), None), Some(1));
        assert_eq!(depth_under(&all, id(0), Some(id(2))), None);
        assert_eq!(depth_under(&all, id(0), Some(id(0))), None);
    }

    proptest! {
        /// Of any tasks that depend on earlier ones: what was settled has nothing left to settle, and every move is in the table.
        #[test]
        fn settled_tasks_are_settled(
            states in proptest::collection::vec((0..9_usize, any::<bool>(), proptest::collection::vec(any::<usize>(), 0..4)), 1..24)
        ) {
            let mut all: Vec<Task> = Vec::new();
            for (n, (status, starves, on)) in states.into_iter().enumerate() {
                let mut on: Vec<_> = if n == 0 { Vec::new() } else { on.into_iter().map(|i| i % n).collect() };
                on.dedup();
                let new = task(n, TaskStatus::ALL[status], &on);
                all.push(if starves && new.status == TaskStatus::Failed { starved(n, &on) } else { new });
            }
            for (by, ids) in settle(&all) {
                for task in all.iter_mut().filter(|t| ids.contains(&t.id)) {
                    let next = crate::domain::task::next(task.status, by);
                    prop_assert!(next.is_some(), "{:?} of {:?}", by, task.status);
                    task.status = next.unwrap_or(task.status);
                    if by == TaskMove::Starve {
                        task.error = Some(RunError::new(STARVED, "", false));
                    }
                }
            }
            prop_assert_eq!(settle(&all), vec![]);
            let status: HashMap<_, _> = all.iter().map(|t| (t.id, t.status)).collect();
            for task in &all {
                let done = task.depends_on.iter().all(|on| status[on] == TaskStatus::Completed);
                prop_assert!(task.status != TaskStatus::Ready || done);
                prop_assert!(task.status != TaskStatus::Pending || !done);
            }
        }
    }
}
