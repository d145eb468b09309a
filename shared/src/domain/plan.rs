//! A goal's plan as a model writes it: what has to be right with it before it is stored, and how it differs from what is there.
use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::task::{Assignee, Task, TaskStatus};

const MAX_KEY: usize = 64;
const MAX_TITLE: usize = 200;
const MAX_DESCRIPTION: usize = 20_000;
const PRIORITIES: std::ops::RangeInclusive<i64> = -1_000_000..=1_000_000;
/// Nobody reads more problems than that at once.
const MAX_PROBLEMS: usize = 30;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub tasks: Vec<PlannedTask>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlannedTask {
    /// Its name in the plan.
    pub key: String,
    pub title: String,
    #[serde(default)]
    pub description: String,
    /// Keys of the tasks that have to be completed before.
    #[serde(default)]
    pub depends_on: Vec<String>,
    /// The key of the task that it is a part of.
    #[serde(default)]
    pub parent: Option<String>,
    /// The higher, the earlier.
    #[serde(default)]
    pub priority: i64,
    #[serde(default)]
    pub requires_approval: bool,
    #[serde(default)]
    pub assignee: Option<Assignee>,
}

#[derive(Clone, Copy, Debug)]
pub struct PlanLimits {
    pub max_tasks: usize,
    pub max_depth: usize,
}

/// A task that stays as it is, whatever the plan says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub key: String,
    pub depends_on: Vec<String>,
    pub parent: Option<String>,
}

/// How a plan differs from the tasks that are there, by their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
    pub kept: Vec<String>,
}

impl Plan {
    /// The shape of a plan, for models that take one. What more has to be right, `check` says.
    pub fn schema(limits: &PlanLimits) -> Value {
        let text = |most: usize| json!({ "type": "string", "maxLength": most });
        json!({
            "title": "goal_plan", "type": "object", "required": ["tasks"],
            "properties": { "tasks": { "type": "array", "minItems": 1, "maxItems": limits.max_tasks, "items": {
                "type": "object", "required": ["key", "title"],
                "properties": {
                    "key": { "type": "string", "minLength": 1, "maxLength": MAX_KEY },
                    "title": { "type": "string", "minLength": 1, "maxLength": MAX_TITLE },
                    "description": text(MAX_DESCRIPTION),
                    "depends_on": { "type": "array", "items": text(MAX_KEY) },
                    "parent": { "type": ["string", "null"] },
                    "priority": { "type": "integer" },
                    "requires_approval": { "type": "boolean" },
                    "assignee": {
                        "type": ["object", "null"], "required": ["kind", "id"],
                        "properties": { "kind": { "enum": ["agent", "user"] }, "id": { "type": "string" } },
                    },
                },
            } } },
        })
    }

    /// Leaves out what the plan says of tasks that stay as they are, and says each dependency once.
    pub fn settle(&mut self, kept: &[Kept]) {
        self.tasks.retain(|task| !kept.iter().any(|k| k.key == task.key));
        for task in &mut self.tasks {
            let mut seen = HashSet::new();
            task.depends_on.retain(|key| seen.insert(key.clone()));
            task.parent.take_if(|parent| parent.is_empty());
        }
    }

    /// Of tasks that are there it may say only what is to change: what it leaves out stays, and so does a person's wish to approve.
    pub fn fill(&mut self, current: &[Task]) {
        for task in &mut self.tasks {
            let is_it = |t: &&Task| t.key == task.key && t.status != TaskStatus::Cancelled;
            let Some(there) = current.iter().find(is_it) else { continue };
            if task.description.is_empty() {
                task.description.clone_from(&there.description);
            }
            if task.priority == 0 {
                task.priority = there.priority;
            }
            if task.assignee.is_none() {
                task.assignee.clone_from(&there.assignee);
            }
            task.requires_approval |= there.requires_approval;
        }
    }

    /// Everything that is wrong with it, for whoever wrote it to read; none: it may be stored beside the tasks that are `kept`.
    pub fn check(&self, limits: &PlanLimits, kept: &[Kept]) -> Vec<String> {
        let mut bad = Vec::new();
        if self.tasks.is_empty() && kept.is_empty() {
            bad.push("it has no tasks".to_owned());
        }
        let count = self.tasks.len() + kept.len();
        if count > limits.max_tasks {
            bad.push(format!("it has {count} tasks; at most {} are allowed", limits.max_tasks));
        }
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (at, key) in kept.iter().map(|k| k.key.as_str()).chain(self.tasks.iter().map(|t| t.key.as_str())).enumerate() {
            if places.insert(key, at).is_some() {
                bad.push(format!("the key {key:?} is there twice"));
            }
        }
        self.tasks.iter().for_each(|task| task.check(&places, &mut bad));
        let shape = Shape::of(self, kept, &places);
        if let Some(path) = cycle(&shape.before) {
            bad.push(format!("these tasks depend on each other in a cycle: {}", shape.named(&path)));
        }
        match cycle(&shape.above) {
            Some(path) => bad.push(format!("these tasks are parts of each other: {}", shape.named(&path))),
            None => shape.check_depth(limits, &mut bad),
        }
        bad.truncate(MAX_PROBLEMS);
        bad
    }

    /// What the plan adds to `current` and takes from it. Of the current tasks those that cannot change any more stay; those that the
    /// plan does not name are removed, as far as its writer has seen them.
    pub fn diff(&self, current: &[Task], seen: &HashSet<String>) -> Diff {
        let mut diff = Diff::default();
        let keys: HashMap<Uuid, &str> = current.iter().map(|t| (t.id, t.key.as_str())).collect();
        let planned: HashMap<&str, &PlannedTask> = self.tasks.iter().map(|t| (t.key.as_str(), t)).collect();
        for task in current.iter().filter(|t| t.status != TaskStatus::Cancelled) {
            let list = match planned.get(task.key.as_str()) {
                _ if is_fixed(task.status) => &mut diff.kept,
                Some(planned) if planned.says(task, &keys) => &mut diff.kept,
                Some(_) => &mut diff.changed,
                None if seen.contains(&task.key) => &mut diff.removed,
                None => &mut diff.kept,
            };
            list.push(task.key.clone());
        }
        let is_there = |key: &str| current.iter().any(|t| t.key == key && t.status != TaskStatus::Cancelled);
        diff.added = self.tasks.iter().map(|t| &t.key).filter(|key| !is_there(key)).cloned().collect();
        diff
    }
}

/// Whether a new plan leaves it alone: it is done, or somebody is at it.
pub fn is_fixed(status: TaskStatus) -> bool {
    matches!(status, TaskStatus::Claimed | TaskStatus::Running | TaskStatus::InReview | TaskStatus::Completed)
}

/// Those of the tasks that a new plan leaves alone: what is done, or being done, and what its writer has not seen.
pub fn kept(current: &[Task], seen: &HashSet<String>) -> Vec<Kept> {
    let keys: HashMap<Uuid, &str> = current.iter().map(|t| (t.id, t.key.as_str())).collect();
    let key = |id: &Uuid| keys.get(id).map(|key| (*key).to_owned());
    let of = |t: &Task| Kept {
        key: t.key.clone(),
        depends_on: t.depends_on.iter().filter_map(key).collect(),
        parent: t.parent_id.as_ref().and_then(key),
    };
    let stays = |t: &&Task| is_fixed(t.status) || t.status != TaskStatus::Cancelled && !seen.contains(&t.key);
    current.iter().filter(stays).map(of).collect()
}

impl PlannedTask {
    fn check(&self, places: &HashMap<&str, usize>, bad: &mut Vec<String>) {
        let (key, title) = (&self.key, self.title.trim());
        if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
            bad.push(format!("the key {key:?} must be 1 to {MAX_KEY} letters, digits, underscores, dots or hyphens"));
        }
        if title.is_empty() || title.chars().count() > MAX_TITLE {
            bad.push(format!("the title of {key:?} must be 1 to {MAX_TITLE} characters"));
        }
        if self.description.chars().count() > MAX_DESCRIPTION {
            bad.push(format!("the description of {key:?} has more than {MAX_DESCRIPTION} characters"));
        }
        if !PRIORITIES.contains(&self.priority) {
            bad.push(format!("the priority of {key:?} must be {} to {}", PRIORITIES.start(), PRIORITIES.end()));
        }
        for other in &self.depends_on {
            if other == key {
                bad.push(format!("{key:?} depends on itself"));
            } else if !places.contains_key(other.as_str()) {
                bad.push(format!("{key:?} depends on {other:?}, which is no task"));
            }
        }
        match self.parent.as_deref() {
            Some(parent) if parent == key => bad.push(format!("{key:?} is its own parent")),
            Some(parent) if !places.contains_key(parent) => {
                bad.push(format!("the parent of {key:?} is {parent:?}, which is no task"));
            }
            _ => {}
        }
    }

    /// Whether the task is as the plan has it.
    fn says(&self, task: &Task, keys: &HashMap<Uuid, &str>) -> bool {
        let before: HashSet<&str> = task.depends_on.iter().filter_map(|id| keys.get(id).copied()).collect();
        let parent = task.parent_id.and_then(|id| keys.get(&id).copied());
        self.title.trim() == task.title
            && self.description == task.description
            && self.depends_on.iter().map(String::as_str).collect::<HashSet<_>>() == before
            && self.parent.as_deref() == parent
            && self.priority == task.priority
            && self.requires_approval == task.requires_approval
            && self.assignee == task.assignee
    }
}

/// The plan and what is kept beside it, by their places: what is kept comes first. Edges to oneself and to nowhere are left out: they
/// are told for themselves.
struct Shape<'a> {
    keys: Vec<&'a str>,
    before: Vec<Vec<usize>>,
    above: Vec<Vec<usize>>,
}

impl<'a> Shape<'a> {
    fn of(plan: &'a Plan, kept: &'a [Kept], places: &HashMap<&str, usize>) -> Self {
        let mut shape = Self { keys: Vec::new(), before: Vec::new(), above: Vec::new() };
        let kept = kept.iter().map(|k| (k.key.as_str(), &k.depends_on, k.parent.as_ref()));
        for (key, depends_on, parent) in kept.chain(plan.tasks.iter().map(|t| (t.key.as_str(), &t.depends_on, t.parent.as_ref())))
        {
            let at = |other: &String| places.get(other.as_str()).copied().filter(|_| other != key);
            shape.keys.push(key);
            shape.before.push(depends_on.iter().filter_map(at).collect());
            shape.above.push(parent.into_iter().filter_map(at).collect());
        }
        shape
    }

    fn named(&self, path: &[usize]) -> String {
        path.iter().map(|at| self.keys[*at]).collect::<Vec<_>>().join(" → ")
    }

    fn check_depth(&self, limits: &PlanLimits, bad: &mut Vec<String>) {
        let depth = |mut at: usize| {
            let mut depth = 1;
            while let Some(parent) = self.above[at].first() {
                (at, depth) = (*parent, depth + 1);
            }
            depth
        };
        let deepest = (0..self.keys.len()).max_by_key(|at| depth(*at));
        if let Some(deepest) = deepest.filter(|at| depth(*at) > limits.max_depth) {
            let (key, depth) = (self.keys[deepest], depth(deepest));
            bad.push(format!("{key:?} is on level {depth} of the tree; at most {} are allowed", limits.max_depth));
        }
    }
}

/// A way along `edges` that comes back to where it began, that place at both ends.
pub fn cycle(edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        OnPath,
        Done,
    }
    let mut marks = vec![Mark::New; edges.len()];
    for start in 0..edges.len() {
        if marks[start] != Mark::New {
            continue;
        }
        // Where it is, and how many of its edges have been followed.
        let mut path = vec![(start, 0)];
        marks[start] = Mark::OnPath;
        while let Some((at, followed)) = path.last_mut() {
            let Some(next) = edges[*at].get(*followed).copied() else {
                marks[*at] = Mark::Done;
                path.pop();
                continue;
            };
            *followed += 1;
            match marks[next] {
                Mark::Done => {}
                Mark::New => {
                    marks[next] = Mark::OnPath;
                    path.push((next, 0));
                }
                Mark::OnPath => {
                    let from = path.iter().position(|(place, _)| *place == next)?;
                    return Some(path[from..].iter().map(|(place, _)| *place).chain([next]).collect());
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{clock::Timestamp, domain::run::RunUsage};

    const LIMITS: PlanLimits = PlanLimits { max_tasks: 5, max_depth: 2 };

    fn planned(key: &str, depends_on: &[&str]) -> PlannedTask {
        let depends_on = depends_on.iter().map(|k| (*k).to_owned()).collect();
        PlannedTask { key: key.into(), title: key.into(), depends_on, ..PlannedTask::default() }
    }

    fn below(key: &str, parent: &str) -> PlannedTask {
        PlannedTask { parent: Some(parent.into()), ..planned(key, &[]) }
    }

    fn problems(tasks: Vec<PlannedTask>) -> String {
        Plan { tasks }.check(&LIMITS, &[]).join("\n")
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        assert_eq!(problems(vec![]), "it has no tasks");
        assert_eq!(problems(vec![planned("a", &[]), planned("b", &["a"])]), "");
        let told =
            problems(vec![planned("a", &["a", "z"]), below("b", "b"), below("c", "y"), planned("a", &[]), planned("d e", &[])]);
        let all =
            ["\"a\" depends on itself", "on \"z\"", "\"b\" is its own parent", "\"y\", which", "\"a\" is there twice", "\"d e\""];
        assert!(all.iter().all(|part| told.contains(part)) && told.lines().count() == all.len(), "{told}");
        let told = problems(vec![planned("a", &["c"]), planned("b", &["a"]), planned("c", &["b"]), planned("d", &["a"])]);
        assert!(told.ends_with("in a cycle: a → c → b → a"), "{told}");
        assert!(problems(vec![below("a", "b"), below("b", "a")]).contains("parts of each other: a → b → a"));
        assert!(problems(vec![planned("a", &[]), below("b", "a"), below("c", "b")]).contains("\"c\" is on level 3"));
        assert!(problems((0..6).map(|i| planned(&format!("t{i}"), &[])).collect()).contains("6 tasks; at most 5"));
        let bare = PlannedTask { title: " ".into(), priority: 2_000_000, ..planned("a", &[]) };
        assert_eq!(problems(vec![bare]).lines().count(), 2);
    }

    #[test]
    fn what_is_kept_counts_and_can_be_depended_on() {
        let kept = |key: &str, parent: Option<&str>| Kept { key: key.into(), depends_on: vec![], parent: parent.map(Into::into) };
        let done = [kept("done", None), kept("part", Some("done"))];
        let mut plan = Plan { tasks: vec![planned("done", &["done"]), planned("next", &["done", "done"])] };
        plan.settle(&done);
        assert_eq!(plan.tasks, [planned("next", &["done"])], "it is done, whatever is said of it");
        assert!(plan.check(&LIMITS, &done).is_empty());
        assert!(Plan::default().check(&LIMITS, &done).is_empty(), "nothing is left to do");
        let deep = Plan { tasks: vec![below("deep", "part")] };
        assert!(deep.check(&LIMITS, &done)[0].contains("level 3"));
        let many = Plan { tasks: (0..4).map(|i| planned(&format!("t{i}"), &[])).collect() };
        assert!(many.check(&LIMITS, &done)[0].contains("6 tasks"));
    }

    fn task(key: &str, status: TaskStatus, depends_on: &[Uuid]) -> Task {
        Task {
            id: Uuid::now_v7(),
            owner: "o".into(),
            goal_id: None,
            parent_id: None,
            key: key.into(),
            title: key.into(),
            description: String::new(),
            status,
            priority: 0,
            position: 0,
            assignee: None,
            requires_approval: false,
            depends_on: depends_on.to_vec(),
            result: None,
            error: None,
            attempt: 0,
            max_attempts: 1,
            claimed_by: None,
            claim_expires_at: None,
            run_id: None,
            usage: RunUsage::default(),
            version: 1,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            started_at: None,
            finished_at: None,
        }
    }

    #[test]
    fn a_plan_shows_what_it_changes() {
        use TaskStatus as S;
        let (done, ready) = (task("done", S::Completed, &[]), task("ready", S::Ready, &[]));
        let same = task("same", S::Failed, &[done.id]);
        let all =
            [done, ready, same, task("gone", S::Pending, &[]), task("unseen", S::Ready, &[]), task("old", S::Cancelled, &[])];
        let seen: HashSet<String> = ["done", "ready", "same", "gone"].map(str::to_owned).into();
        let plan = Plan {
            tasks: vec![planned("same", &["done"]), planned("ready", &["same"]), planned("old", &[]), planned("new", &[])],
        };
        let keys = |list: &[&str]| list.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>();
        let diff = Diff {
            added: keys(&["old", "new"]),
            removed: keys(&["gone"]),
            changed: keys(&["ready"]),
            kept: keys(&["done", "same", "unseen"]),
        };
        assert_eq!(plan.diff(&all, &seen), diff);
        assert_eq!(kept(&all, &seen).into_iter().map(|k| k.key).collect::<Vec<_>>(), ["done", "unseen"]);
    }

    #[test]
    fn what_a_plan_leaves_out_stays() {
        let there = Task { description: "how".into(), priority: 3, requires_approval: true, ..task("a", TaskStatus::Ready, &[]) };
        let assignee = Some(Assignee::User("ann".into()));
        let there = Task { assignee: assignee.clone(), ..there };
        let mut plan = Plan { tasks: vec![planned("a", &[]), planned("b", &[])] };
        plan.fill(std::slice::from_ref(&there));
        assert_eq!(plan.diff(&[there], &HashSet::new()).kept, ["a"]);
        assert_eq!((plan.tasks[0].assignee.clone(), plan.tasks[1].clone()), (assignee, planned("b", &[])));
    }

    proptest! {
        /// Whatever the edges: a cycle that is told is one, and where none is told there is an order.
        #[test]
        fn cycles_are_found_and_nothing_else(edges in (1_usize..12).prop_flat_map(|n| prop::collection::vec(prop::collection::vec(0..n, 0..4), n))) {
            if let Some(path) = cycle(&edges) {
                prop_assert!(path.len() >= 2 && path.first() == path.last());
                prop_assert!(path.windows(2).all(|step| edges[step[0]].contains(&step[1])));
            } else {
                let mut left: Vec<usize> = (0..edges.len()).collect();
                while !left.is_empty() {
                    let count = left.len();
                    let still = left.clone();
                    left.retain(|at| edges[*at].iter().any(|next| still.contains(next)));
                    prop_assert!(left.len() < count, "no cycle was told, and none of {left:?} can be first");
                }
            }
        }

        /// Edges that only lead back are never refused, in whatever order the tasks are told.
        #[test]
        fn an_order_is_no_cycle(order in Just((0_usize..8).collect::<Vec<_>>()).prop_shuffle(), pairs in prop::collection::vec((0_usize..8, 0_usize..8), 0..20)) {
            let mut edges = vec![Vec::new(); 8];
            for (a, b) in pairs.into_iter().filter(|(a, b)| a != b) {
                edges[order[a.max(b)]].push(order[a.min(b)]);
            }
            prop_assert_eq!(cycle(&edges), None);
        }
    }
}
