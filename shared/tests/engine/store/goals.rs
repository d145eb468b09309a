use runmill_shared::{
    domain::{
        goal::{Autonomy, Goal, GoalStatus, OnFailure, Progress, Settings, thread_name},
        page::PageRequest,
        run::RunError,
        task::TaskStatus,
    },
    store::{
        goals,
        tasks::{self, NewTask},
        threads,
    },
};

use super::{super::*, NASTY};

async fn goal(w: &World, of: &Owner, title: &str) -> Goal {
    let id = new_id();
    let mut tx = w.tx().await;
    let thread_id = threads::ensure(&mut tx, new_id(), of, &thread_name(id), false, START).await.unwrap();
    let goal = Goal {
        id,
        owner: of.as_str().to_owned(),
        thread_id,
        title: title.into(),
        description: NASTY.into(),
        status: GoalStatus::Draft,
        before: None,
        agent_id: Some("agent".into()),
        autonomy: Autonomy::ApproveEach,
        deadline: Some(START.after(MINUTE)),
        settings: Settings { on_failure: OnFailure::Replan, ..Settings::default() },
        plan_version: 0,
        plan_run_id: None,
        run_id: None,
        error: None,
        version: 1,
        created_at: START,
        updated_at: START,
        started_at: None,
        finished_at: None,
    };
    goals::insert(&mut tx, &goal).await.unwrap();
    tx.commit().await.unwrap();
    goal
}

fn task(goal: &Goal, key: &str, status: TaskStatus) -> NewTask {
    NewTask {
        id: new_id(),
        owner: goal.owner.clone(),
        goal_id: Some(goal.id),
        parent_id: None,
        key: key.into(),
        title: key.into(),
        description: String::new(),
        status,
        priority: 0,
        position: 0,
        assignee: None,
        requires_approval: false,
        depends_on: Vec::new(),
        max_attempts: 1,
    }
}

async fn add(w: &World, new: &[NewTask]) {
    let mut tx = w.tx().await;
    tasks::insert_many(&mut tx, new, START).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_goal_is_its_owners_and_changes_by_its_version() {
    for w in worlds().await {
        let stored = goal(&w, &owner(), "Paint 50% of it").await;
        let stranger = Owner::of_row("stranger");
        assert_eq!(goals::by_id(&w.app.db, &owner(), stored.id).await.unwrap().as_ref(), Some(&stored), "{}", w.name);
        assert_eq!(goals::any_by_id(&w.app.db, stored.id).await.unwrap().as_ref(), Some(&stored));
        assert_eq!(goals::by_id(&w.app.db, &stranger, stored.id).await.unwrap(), None);
        let mut tx = w.tx().await;
        let changed = Goal { title: "another".into(), agent_id: None, deadline: None, ..stored.clone() };
        assert!(goals::update(&mut tx, &changed, START.after(MINUTE)).await.unwrap());
        assert!(!goals::update(&mut tx, &changed, START).await.unwrap(), "the version is not the one that was read");
        assert!(!goals::delete(&mut tx, &stranger, stored.id).await.unwrap());
        tx.commit().await.unwrap();
        let now = goals::any_by_id(&w.app.db, stored.id).await.unwrap().unwrap();
        assert_eq!(now, Goal { version: 2, updated_at: START.after(MINUTE), ..changed });
    }
}

#[tokio::test]
async fn a_list_says_how_far_each_is() {
    for w in worlds().await {
        let (a, b) = (goal(&w, &owner(), "a 50%").await, goal(&w, &owner(), "B").await);
        goal(&w, &Owner::of_row("stranger"), "theirs").await;
        let states = [TaskStatus::Completed, TaskStatus::Ready, TaskStatus::Cancelled, TaskStatus::Failed];
        let new: Vec<_> = states.iter().map(|s| task(&a, s.as_str(), *s)).collect();
        add(&w, &new).await;
        let page = |search: Option<&str>, sort: &str| PageRequest {
            number: 1,
            size: 10,
            search: search.map(str::to_owned),
            status: None,
            sort: Some(sort.into()),
        };
        let listed = goals::list(&w.app.db, &owner(), &page(None, "title")).await.unwrap();
        let all: Vec<_> = listed.items.iter().map(|s| (s.goal.id, s.progress)).collect();
        let far = Progress { done: 1, total: 3 };
        assert_eq!((listed.total, all), (2, vec![(a.id, far), (b.id, Progress::default())]), "{}", w.name);
        assert_eq!(goals::progress(&w.app.db, a.id).await.unwrap(), far);
        assert_eq!(goals::list(&w.app.db, &owner(), &page(None, "-title")).await.unwrap().items[0].goal.id, b.id);
        assert_eq!(goals::list(&w.app.db, &owner(), &page(Some("50%"), "title")).await.unwrap().total, 1);
        let active = PageRequest { status: Some("active".into()), ..page(None, "title") };
        assert_eq!(goals::list(&w.app.db, &owner(), &active).await.unwrap().total, 0);
    }
}

#[tokio::test]
async fn states_and_plans_are_set_by_comparison() {
    use GoalStatus as S;
    for w in worlds().await {
        let (stored, planner) = (goal(&w, &owner(), "g").await, new_id());
        let why = RunError::new("WHY", NASTY, false);
        let mut tx = w.tx().await;
        assert_eq!(goals::set_status(&mut tx, stored.id, &[S::Active, S::Paused], S::Failed, None, START).await.unwrap(), None);
        let active =
            goals::set_status(&mut tx, stored.id, &[S::Draft], S::Active, None, START.after(MINUTE)).await.unwrap().unwrap();
        assert_eq!((active.status, active.started_at, active.before), (S::Active, Some(START.after(MINUTE)), None), "{}", w.name);
        let planning = goals::set_status(&mut tx, stored.id, &[S::Active], S::Planning, None, START).await.unwrap().unwrap();
        assert_eq!(planning.before, Some(S::Active));
        let planned = goals::set_plan(&mut tx, stored.id, 0, planner, START).await.unwrap().unwrap();
        assert_eq!((planned.plan_version, planned.plan_run_id), (1, Some(planner)));
        assert_eq!(goals::set_plan(&mut tx, stored.id, 0, new_id(), START).await.unwrap(), None, "there is a newer one");
        let failed = goals::set_status(&mut tx, stored.id, &S::ALL, S::Failed, Some(&why), START).await.unwrap().unwrap();
        assert_eq!((failed.error, failed.finished_at, failed.before), (Some(why), Some(START), None));
        goals::set_run(&mut tx, stored.id, Some(planner)).await.unwrap();
        let again = goals::set_status(&mut tx, stored.id, &S::ALL, S::Active, None, START).await.unwrap().unwrap();
        let ran = (again.run_id, again.error, again.finished_at, again.started_at);
        assert_eq!(ran, (Some(planner), None, None, Some(START.after(MINUTE))));
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_deleted_goal_takes_its_tasks_along_unless_somebody_is_at_one() {
    for w in worlds().await {
        let (idle, busy) = (goal(&w, &owner(), "idle").await, goal(&w, &owner(), "busy").await);
        let gone = task(&idle, "t", TaskStatus::Ready);
        add(&w, &[gone.clone(), task(&busy, "t", TaskStatus::Claimed)]).await;
        let mut tx = w.tx().await;
        assert!(goals::delete(&mut tx, &owner(), idle.id).await.unwrap(), "{}", w.name);
        assert!(!goals::delete(&mut tx, &owner(), idle.id).await.unwrap());
        assert!(!goals::delete(&mut tx, &owner(), busy.id).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(tasks::any_by_id(&w.app.db, gone.id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn the_key_of_a_removed_task_can_be_given_again() {
    for w in worlds().await {
        let goal = goal(&w, &owner(), "g").await;
        add(
            &w,
            &[
                task(&goal, "k", TaskStatus::Cancelled),
                task(&goal, "k", TaskStatus::Cancelled),
                task(&goal, "k", TaskStatus::Ready),
            ],
        )
        .await;
        let mut tx = w.tx().await;
        let taken = tasks::insert_many(&mut tx, &[task(&goal, "k", TaskStatus::Pending)], START).await;
        assert_eq!(taken.unwrap_err().code, "TASK_EXISTS", "{}", w.name);
    }
}
