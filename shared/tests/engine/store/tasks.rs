use runmill_shared::{
    domain::{
        page::PageRequest,
        run::RunError,
        task::{Assignee, Task, TaskMove, TaskStatus, next},
    },
    store::tasks::{self, Change, Filter, NewTask},
};

use super::{
    super::{
        tasks::{goal, task},
        *,
    },
    NASTY,
};

fn page(size: i64, sort: Option<&str>) -> PageRequest {
    PageRequest { number: 1, size, search: None, status: None, sort: sort.map(str::to_owned) }
}

async fn insert(w: &World, new: &[NewTask]) {
    let mut tx = w.tx().await;
    tasks::insert_many(&mut tx, new, START).await.unwrap();
    tx.commit().await.unwrap();
}

async fn read(w: &World, id: Uuid) -> Task {
    tasks::any_by_id(&w.app.db, id).await.unwrap().unwrap()
}

#[tokio::test]
async fn every_move_is_made_from_the_states_of_the_table_and_from_no_other() {
    for w in worlds().await {
        let goal = goal(&w).await;
        let mut made = 0;
        for by in TaskMove::ALL {
            for status in TaskStatus::ALL {
                let of = |many: bool| NewTask { status, ..task(Some(goal.id), &format!("{by:?}-{status:?}-{many}")) };
                let (one, many) = (of(false), of(true));
                insert(&w, &[one.clone(), many.clone()]).await;
                let mut tx = w.tx().await;
                let moved = tasks::make(&mut tx, one.id, by, &Change::default(), START).await.unwrap();
                let all = tasks::make_many(&mut tx, &[many.id], by, None, START).await.unwrap();
                tx.commit().await.unwrap();
                let expected = next(status, by);
                let name = format!("{}: {by:?} from {status:?}", w.name);
                assert_eq!(moved.as_ref().map(|t| t.status), expected, "{name}");
                assert_eq!(all.first().map(|t| t.status), expected, "{name}, many");
                for id in [one.id, many.id] {
                    let stored = read(&w, id).await;
                    assert_eq!(
                        (stored.status, stored.version),
                        (expected.unwrap_or(status), 1 + i64::from(expected.is_some())),
                        "{name}"
                    );
                }
                made += usize::from(expected.is_some());
            }
        }
        assert_eq!(made, TaskMove::ALL.iter().map(|m| m.table().0.len()).sum::<usize>());
    }
}

#[tokio::test]
async fn what_is_stored_comes_back_with_what_it_depends_on() {
    for w in worlds().await {
        let goal = goal(&w).await;
        let (a, b) = (task(Some(goal.id), "a"), NewTask { position: 2, ..task(Some(goal.id), "b") });
        let mut on = vec![a.id, b.id];
        on.sort_unstable();
        let c = NewTask {
            parent_id: Some(b.id),
            title: NASTY.into(),
            description: NASTY.into(),
            status: TaskStatus::Pending,
            priority: -3,
            position: 1,
            assignee: Some(Assignee::User(NASTY.into())),
            requires_approval: true,
            depends_on: on.clone(),
            max_attempts: 7,
            ..task(Some(goal.id), "c")
        };
        insert(&w, &[c.clone(), a.clone(), b.clone()]).await;
        let keys: Vec<_> = tasks::of_goal(&w.app.db, goal.id).await.unwrap().into_iter().map(|t| t.key).collect();
        assert_eq!(keys, ["a", "c", "b"], "{}: by their position", w.name);
        let mine = tasks::by_id(&w.app.db, &owner(), c.id).await.unwrap().unwrap();
        assert_eq!((mine.title.as_str(), mine.description.as_str(), mine.assignee.clone()), (NASTY, NASTY, c.assignee));
        assert_eq!((mine.parent_id, mine.priority, mine.max_attempts, mine.requires_approval), (Some(b.id), -3, 7, true));
        assert_eq!((mine.depends_on, mine.attempt, mine.version, mine.created_at), (on, 0, 1, START));
        assert_eq!(tasks::by_id(&w.app.db, &Owner::of_row("stranger"), c.id).await.unwrap(), None);

        let mut tx = w.tx().await;
        let taken = tasks::insert_many(&mut tx, &[task(Some(goal.id), "a")], START).await.unwrap_err();
        assert_eq!(taken.code, "TASK_EXISTS");
        drop(tx);
        insert(&w, &[task(None, "a"), task(None, "a")]).await;

        let mut tx = w.tx().await;
        tasks::set_dependencies(&mut tx, c.id, &[a.id]).await.unwrap();
        let changed = Task { title: "new".into(), parent_id: None, assignee: None, ..read(&w, c.id).await };
        assert!(tasks::update(&mut tx, &changed, START.after(MINUTE)).await.unwrap());
        assert!(!tasks::update(&mut tx, &changed, START).await.unwrap(), "its version has gone by");
        tx.commit().await.unwrap();
        let stored = read(&w, c.id).await;
        assert_eq!((stored.title.as_str(), stored.parent_id, stored.assignee, stored.version), ("new", None, None, 2));
        assert_eq!((stored.depends_on, stored.updated_at), (vec![a.id], START.after(MINUTE)));

        let mut tx = w.tx().await;
        assert!(tasks::delete(&mut tx, a.id).await.unwrap() && !tasks::delete(&mut tx, a.id).await.unwrap());
        tx.commit().await.unwrap();
        assert!(read(&w, c.id).await.depends_on.is_empty());
    }
}

#[tokio::test]
async fn a_list_has_its_owners_tasks_as_they_are_asked_for() {
    for w in worlds().await {
        let goal = goal(&w).await;
        let ready = |key: &str, priority| NewTask { priority, position: priority, ..task(Some(goal.id), key) };
        let mine = [
            ready("low", 1),
            ready("high", 3),
            NewTask { status: TaskStatus::Pending, assignee: Some(Assignee::Agent("bob".into())), ..ready("mid", 2) },
            NewTask { title: "50% of it".into(), ..task(None, "alone") },
        ];
        insert(&w, &mine).await;
        insert(&w, &[NewTask { owner: "stranger".into(), ..task(None, "theirs") }]).await;
        let keys = async |filter: Filter, page: PageRequest| {
            let found = tasks::list(&w.app.db, &owner(), &filter, &page).await.unwrap();
            (found.items.into_iter().map(|t| t.key).collect::<Vec<_>>(), found.total)
        };
        let all = Filter::default;
        assert_eq!(keys(all(), page(9, None)).await.1, 4, "{}", w.name);
        let of_goal = Filter { goal_id: Some(goal.id), assignee: None };
        assert_eq!(keys(of_goal.clone(), page(2, Some("-priority"))).await, (vec!["high".into(), "mid".into()], 3));
        assert_eq!(keys(of_goal.clone(), page(1, Some("position"))).await.0, ["low"]);
        let bobs = Filter { goal_id: None, assignee: Some("bob".into()) };
        assert_eq!(keys(bobs, page(9, None)).await, (vec!["mid".into()], 1));
        let searched = PageRequest { search: Some("50% OF".into()), ..page(9, None) };
        assert_eq!(keys(all(), searched).await, (vec!["alone".into()], 1));
        let pending = PageRequest { status: Some("pending".into()), ..page(9, None) };
        assert_eq!(keys(of_goal, pending).await, (vec!["mid".into()], 1));
        let available = tasks::available(&w.app.db, goal.id, &page(1, None)).await.unwrap();
        assert_eq!((available.items[0].key.as_str(), available.total), ("high", 2));
    }
}

#[tokio::test]
async fn a_move_writes_what_comes_with_it() {
    for w in worlds().await {
        let new = task(None, "a");
        insert(&w, std::slice::from_ref(&new)).await;
        let mut tx = w.tx().await;
        let until = START.after(MINUTE);
        let claim = Change { claim: Some(("me", until)), ..Change::default() };
        let claimed = tasks::make(&mut tx, new.id, TaskMove::Claim, &claim, START).await.unwrap().unwrap();
        assert_eq!((claimed.claimed_by.as_deref(), claimed.claim_expires_at), (Some("me"), Some(until)), "{}", w.name);
        assert_eq!(claimed.started_at, Some(START));

        let (run, other) = (new_id(), new_id());
        let start = Change { run_id: Some(run), ..Change::default() };
        let running = tasks::make(&mut tx, new.id, TaskMove::Start, &start, until).await.unwrap().unwrap();
        assert_eq!((running.run_id, running.claimed_by, running.claim_expires_at), (Some(run), None, None));
        let error = RunError::new("BAD", NASTY, true);
        let used = RunUsage { input_tokens: 1, output_tokens: 2, cached_input_tokens: 3, cost_micros: 4 };
        let fail = Change { of_run: Some(other), error: Some(&error), attempts: 1, usage: used, ..Change::default() };
        assert_eq!(tasks::make(&mut tx, new.id, TaskMove::Fail, &fail, until).await.unwrap(), None, "another's end");
        let fail = Change { of_run: Some(run), ..fail };
        let failed = tasks::make(&mut tx, new.id, TaskMove::Fail, &fail, until).await.unwrap().unwrap();
        assert_eq!((failed.attempt, failed.error.as_ref(), failed.finished_at), (1, Some(&error), Some(until)));
        tasks::add_usage(&mut tx, new.id, used).await.unwrap();

        tasks::make(&mut tx, new.id, TaskMove::Retry, &Change::default(), until).await.unwrap().unwrap();
        let ready = tasks::make(&mut tx, new.id, TaskMove::Unblock, &Change::default(), until).await.unwrap().unwrap();
        assert_eq!((ready.error, ready.finished_at, ready.started_at), (Some(error), None, None), "the next try sees why");
        tasks::make(&mut tx, new.id, TaskMove::Start, &start, until).await.unwrap().unwrap();
        let result = json!({ "content": NASTY });
        let done = Change { result: Some(&result), usage: used, ..Change::default() };
        let done = tasks::make(&mut tx, new.id, TaskMove::Submit, &done, until).await.unwrap().unwrap();
        assert_eq!((done.result.as_ref(), done.error, done.finished_at), (Some(&result), None, None));
        let thrice = RunUsage { input_tokens: 3, output_tokens: 6, cached_input_tokens: 9, cost_micros: 12 };
        assert_eq!((done.usage, done.attempt), (thrice, 1));
        let approved = tasks::make(&mut tx, new.id, TaskMove::Approve, &Change::default(), until).await.unwrap().unwrap();
        assert_eq!((approved.result, approved.finished_at), (Some(result), Some(until)));
    }
}

#[tokio::test]
async fn claims_that_have_lapsed_are_given_back() {
    for w in worlds().await {
        let goal = goal(&w).await;
        let all = [task(Some(goal.id), "a"), task(Some(goal.id), "b"), task(None, "c")];
        insert(&w, &all).await;
        let mut tx = w.tx().await;
        for (new, minutes) in all.iter().zip([1, 2, 1]) {
            let change = Change { claim: Some(("me", START.after(MINUTE * minutes))), ..Change::default() };
            tasks::make(&mut tx, new.id, TaskMove::Claim, &change, START).await.unwrap().unwrap();
        }
        tx.commit().await.unwrap();
        assert!(tasks::lapsed(&w.app.db, START, 10).await.unwrap().is_empty(), "{}", w.name);
        let due = START.after(MINUTE);
        let mut goals: Vec<_> = tasks::lapsed(&w.app.db, due, 10).await.unwrap().into_iter().map(|l| l.0).collect();
        goals.sort_unstable();
        assert_eq!(goals, [None, Some(goal.id)]);
        let mut tx = w.tx().await;
        for (goal, key) in [(Some(goal.id), "a"), (None, "c")] {
            let released = tasks::release_lapsed(&mut tx, goal, due, 10).await.unwrap();
            let [task] = &released[..] else { panic!("{}: {released:?}", w.name) };
            assert_eq!((task.key.as_str(), task.status, task.claimed_by.as_deref()), (key, TaskStatus::Ready, None));
        }
        tx.commit().await.unwrap();
        assert!(tasks::lapsed(&w.app.db, due, 10).await.unwrap().is_empty());
    }
}
