use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::domain::{goal::Settings, new_id};

const NOW: Timestamp = Timestamp(1_000_000_000);

fn goal() -> Goal {
    Goal {
        id: new_id(),
        owner: "ann".into(),
        thread_id: new_id(),
        title: "Paint the fence".into(),
        description: String::new(),
        status: GoalStatus::Active,
        before: None,
        agent_id: None,
        autonomy: Autonomy::Auto,
        deadline: None,
        settings: Settings { max_parallel: 2, ..Settings::default() },
        plan_version: 1,
        plan_run_id: None,
        run_id: None,
        error: None,
        version: 1,
        created_at: NOW,
        updated_at: NOW,
        started_at: Some(NOW),
        finished_at: None,
    }
}

fn task(position: usize, status: TaskStatus) -> Task {
    Task {
        id: new_id(),
        owner: "ann".into(),
        goal_id: None,
        parent_id: None,
        key: format!("t{position}"),
        title: format!("Task {position}"),
        description: String::new(),
        status,
        priority: 0,
        position: i64::try_from(position).unwrap(),
        assignee: None,
        requires_approval: false,
        depends_on: Vec::new(),
        result: None,
        error: None,
        attempt: 0,
        max_attempts: 1,
        claimed_by: None,
        claim_expires_at: None,
        run_id: None,
        usage: RunUsage::default(),
        version: 1,
        created_at: NOW,
        updated_at: NOW,
        started_at: None,
        finished_at: None,
    }
}

fn tasks(statuses: &[TaskStatus]) -> Vec<Task> {
    statuses.iter().enumerate().map(|(i, status)| task(i, *status)).collect()
}

/// A board on which nobody was asked and nothing was planned.
fn decide(goal: &Goal, tasks: &[Task]) -> Decision {
    next(&Board { goal, tasks, asked: &HashMap::new(), plan: None, replans: 0, max_replans: 1, is_held: false }, NOW)
}

fn code(decision: &Decision) -> &str {
    match decision {
        Decision::End(End::Failed(error)) => &error.code,
        other => panic!("{other:?}"),
    }
}

use TaskStatus::{Cancelled, Claimed, Completed, Failed, Pending, Ready, Rejected, Running};

#[test]
fn a_goal_without_tasks_is_planned_first() {
    assert_eq!(decide(&goal(), &[]), Decision::Plan { anew: false });
    let planning = Goal { status: GoalStatus::Planning, ..goal() };
    assert_eq!(decide(&planning, &[]), Decision::Wait(Waiting::Tasks { until: None }), "somebody else plans it");
}

#[test]
fn as_many_are_started_as_may_run_the_urgent_first() {
    let mut board = tasks(&[Ready, Ready, Ready, Pending]);
    board[2].priority = 5;
    assert_eq!(decide(&goal(), &board), Decision::Act(vec![Act::Start(board[2].id), Act::Start(board[0].id)]));
    let board = tasks(&[Running, Running, Ready]);
    assert_eq!(decide(&goal(), &board), Decision::Wait(Waiting::Tasks { until: None }));
}

#[test]
fn what_is_a_persons_is_left_to_them() {
    let mut board = tasks(&[Ready, Ready]);
    board[0].assignee = Some(Assignee::User("ann".into()));
    board[1].assignee = Some(Assignee::Agent("a".into()));
    assert_eq!(decide(&goal(), &board), Decision::Act(vec![Act::Start(board[1].id)]));
    let planned = Goal { autonomy: Autonomy::PlanOnly, ..goal() };
    assert_eq!(decide(&planned, &board), Decision::Wait(Waiting::Tasks { until: None }));
}

#[test]
fn a_person_is_asked_once_before_each() {
    let goal = Goal { autonomy: Autonomy::ApproveEach, ..goal() };
    let board = tasks(&[Ready, Ready, Ready, Ready]);
    let why = RunError::new("APPROVAL_REJECTED", "no", false);
    let approval = new_id();
    let until = NOW.after(Duration::from_secs(9));
    let mut asked = HashMap::from([
        (board[0].id, Asked::Open { approval, until }),
        (board[1].id, Asked::Approved),
        (board[2].id, Asked::Refused(why.clone())),
    ]);
    let see = |tasks: &[Task], asked: &HashMap<Uuid, Asked>| {
        next(&Board { goal: &goal, tasks, asked, plan: None, replans: 0, max_replans: 0, is_held: false }, NOW)
    };
    let acts = vec![Act::Start(board[1].id), Act::Refuse(board[2].id, why), Act::Ask(board[3].id)];
    assert_eq!(see(&board, &asked), Decision::Act(acts));
    asked.remove(&board[1].id);
    let one = &board[..1];
    let waiting = Waiting::Approval { approvals: vec![approval], until: Some(until) };
    assert_eq!(see(one, &asked), Decision::Wait(waiting));
}

#[test]
fn it_ends_as_its_tasks_did() {
    assert_eq!(decide(&goal(), &tasks(&[Completed, Cancelled])), Decision::End(End::Completed));
    assert_eq!(code(&decide(&goal(), &tasks(&[Cancelled]))), "NOTHING_LEFT");
    let mut board = tasks(&[Completed, Failed, Failed, Rejected]);
    board[1].error = Some(RunError::new("X", "it broke", false));
    board[2].error = Some(RunError::new(STARVED, "starved", false));
    let ended = decide(&goal(), &board);
    assert_eq!(code(&ended), "TASKS_FAILED");
    let Decision::End(End::Failed(error)) = ended else { unreachable!() };
    assert_eq!(error.message, "3 of 4 tasks were not completed: Task 1 (it broke); Task 3");
    assert_eq!(decide(&goal(), &tasks(&[Failed, Claimed])), Decision::Wait(Waiting::Tasks { until: None }), "the rest is done");
}

#[test]
fn the_run_follows_a_goal_that_somebody_has_ended() {
    let with = |status| Goal { status, error: Some(RunError::new("X", "x", false)), ..goal() };
    let board = tasks(&[Ready]);
    assert_eq!(decide(&with(GoalStatus::Cancelled), &board), Decision::End(End::Cancelled));
    assert_eq!(decide(&with(GoalStatus::Completed), &board), Decision::End(End::Completed));
    assert_eq!(code(&decide(&with(GoalStatus::Failed), &board)), "X");
}

#[test]
fn limits_end_it_unless_all_is_done() {
    let late = Goal { deadline: Some(NOW), ..goal() };
    assert_eq!(code(&decide(&late, &tasks(&[Running]))), "DEADLINE_EXCEEDED");
    assert_eq!(decide(&late, &tasks(&[Completed])), Decision::End(End::Completed));
    let spent = |budget| {
        let mut goal = goal();
        goal.settings.budget = budget;
        let mut board = tasks(&[Ready, Completed]);
        board[1].usage = RunUsage { input_tokens: 6, output_tokens: 4, cost_micros: 3, ..RunUsage::default() };
        decide(&goal, &board)
    };
    assert_eq!(code(&spent(Budget { max_tokens: Some(10), ..Budget::default() })), "BUDGET_EXHAUSTED");
    assert_eq!(code(&spent(Budget { max_cost_micros: Some(3), ..Budget::default() })), "BUDGET_EXHAUSTED");
    assert_eq!(code(&spent(Budget { max_seconds: Some(0), ..Budget::default() })), "BUDGET_EXHAUSTED");
    assert!(matches!(spent(Budget { max_tokens: Some(11), max_cost_micros: Some(4), max_seconds: Some(1) }), Decision::Act(_)));
}

#[test]
fn it_is_looked_at_when_the_first_limit_comes() {
    let mut goal = Goal { deadline: Some(NOW.after(Duration::from_secs(60))), ..goal() };
    goal.settings.budget.max_seconds = Some(30);
    let until = Some(NOW.after(Duration::from_secs(30)));
    assert_eq!(decide(&goal, &tasks(&[Running])), Decision::Wait(Waiting::Tasks { until }));
    goal.status = GoalStatus::Paused;
    assert_eq!(decide(&goal, &tasks(&[Ready])), Decision::Wait(Waiting::Paused { until }));
}

#[test]
fn what_is_paused_starts_nothing_and_may_still_be_completed() {
    let paused = Goal { status: GoalStatus::Paused, ..goal() };
    assert_eq!(decide(&paused, &tasks(&[Ready, Running])), Decision::Wait(Waiting::Paused { until: None }));
    assert_eq!(decide(&paused, &tasks(&[Failed])), Decision::Wait(Waiting::Paused { until: None }), "a person may try it again");
    assert_eq!(decide(&paused, &tasks(&[Completed])), Decision::End(End::Completed));
}

#[test]
fn what_failed_is_planned_anew_so_often() {
    let mut goal = goal();
    goal.settings.on_failure = OnFailure::Replan;
    let see = |tasks: &[Task], replans, plan: Option<&Planned>| {
        next(&Board { goal: &goal, tasks, asked: &HashMap::new(), plan, replans, max_replans: 1, is_held: false }, NOW)
    };
    assert_eq!(see(&tasks(&[Failed, Claimed]), 0, None), Decision::Plan { anew: true });
    assert_eq!(see(&tasks(&[Failed, Running]), 0, None), Decision::Wait(Waiting::Tasks { until: None }), "one plan for all");
    assert_eq!(code(&see(&tasks(&[Failed]), 1, None)), "TASKS_FAILED");
    let run = new_id();
    let waiting = Waiting::Children { runs: vec![run], until: None };
    assert_eq!(see(&tasks(&[Failed]), 1, Some(&Planned::UnderWay(run))), Decision::Wait(waiting));
    let failed = Planned::Failed(RunError::new("PLAN_INVALID", "x", false));
    assert_eq!(code(&see(&tasks(&[Failed]), 1, Some(&failed))), "PLAN_INVALID");
}

/// What `services::tasks::settle` does.
fn settle(tasks: &mut [Task]) {
    loop {
        let status: HashMap<_, _> = tasks.iter().map(|t| (t.id, t.status)).collect();
        let mut changed = false;
        for task in tasks.iter_mut().filter(|t| t.status == Pending) {
            let on = |wanted: &[TaskStatus]| task.depends_on.iter().map(|d| status[d]).filter(|s| wanted.contains(s)).count();
            if on(&[Failed, Rejected]) > 0 {
                task.status = Failed;
                task.error = Some(RunError::new(STARVED, "starved", false));
            } else if on(&[Completed]) == task.depends_on.len() {
                task.status = Ready;
            } else {
                continue;
            }
            changed = true;
        }
        if !changed {
            return;
        }
    }
}

proptest! {
    /// Any plan comes to its end, in the order of its dependencies, with no more at once than may be, whatever fails and whatever is
    /// refused; and the goal never waits for nothing.
    #[test]
    fn a_goal_comes_to_its_end(
        edges in vec(vec(0_usize..30, 0..4), 1..30),
        bad in vec(0_usize..6, 30),
        order in vec(0_usize..1000, 60),
        max_parallel in 1_u32..5,
        asks in any::<bool>(),
    ) {
        let mut goal = goal();
        goal.settings.max_parallel = max_parallel;
        goal.autonomy = if asks { Autonomy::ApproveEach } else { Autonomy::Auto };
        let mut all: Vec<_> = (0..edges.len()).map(|i| task(i, Pending)).collect();
        for (i, on) in edges.iter().enumerate() {
            all[i].depends_on = on.iter().filter(|j| **j < i).map(|j| all[*j].id).collect();
        }
        settle(&mut all);
        let mut asked = HashMap::new();
        let mut order = order.into_iter().cycle();
        for _ in 0..1000 {
            let board = Board { goal: &goal, tasks: &all, asked: &asked, plan: None, replans: 0, max_replans: 0, is_held: false };
            let acts = match next(&board, NOW) {
                Decision::End(end) => {
                    let completed = all.iter().all(|t| t.status == Completed);
                    prop_assert_eq!(end == End::Completed, completed, "{:?}", all.iter().map(|t| t.status).collect::<Vec<_>>());
                    prop_assert!(all.iter().all(|t| t.status.is_ended()));
                    return Ok(());
                }
                Decision::Act(acts) => acts,
                Decision::Wait(_) => {
                    // Somebody decides, or one of those that run ends.
                    let open = asked.iter().find(|(_, a)| matches!(a, Asked::Open { .. })).map(|(id, _)| *id);
                    let running: Vec<_> = (0..all.len()).filter(|i| all[*i].status == Running).collect();
                    prop_assert!(open.is_some() || !running.is_empty(), "it waits for nothing");
                    if let Some(id) = open {
                        let i = all.iter().position(|t| t.id == id).unwrap();
                        let refused = Asked::Refused(RunError::new("APPROVAL_REJECTED", "no", false));
                        asked.insert(id, if bad[i] == 1 { refused } else { Asked::Approved });
                    } else {
                        let i = running[order.next().unwrap() % running.len()];
                        all[i].status = if bad[i] == 0 { Failed } else { Completed };
                        settle(&mut all);
                    }
                    continue;
                }
                Decision::Plan { .. } => return Err(TestCaseError::fail("it was planned already")),
            };
            for act in acts {
                let (Act::Start(id) | Act::Ask(id) | Act::Refuse(id, _)) = act;
                let i = all.iter().position(|t| t.id == id).unwrap();
                prop_assert_eq!(all[i].status, Ready);
                match act {
                    Act::Start(_) => {
                        let done = |id: &Uuid| all.iter().any(|t| t.id == *id && t.status == Completed);
                        prop_assert!(all[i].depends_on.iter().all(done), "before what it depends on");
                        all[i].status = Running;
                    }
                    Act::Ask(_) => {
                        let was = asked.insert(id, Asked::Open { approval: id, until: NOW });
                        prop_assert!(was.is_none(), "asked twice");
                    }
                    Act::Refuse(..) => all[i].status = Rejected,
                }
            }
            settle(&mut all);
            let running = all.iter().filter(|t| t.status == Running).count();
            prop_assert!(running <= usize::try_from(max_parallel).unwrap());
        }
        prop_assert!(false, "it never ends");
    }
}
