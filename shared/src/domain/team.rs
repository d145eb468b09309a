//! A team: several agents that work on one message, and how. What a client asks for is checked as a whole; what comes of it is a plan
//! that a worker follows from its journal alone.
use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::condition::Condition;
use crate::error::{Error, FieldError, Result};

/// What a condition of an edge may read of the node that it comes from: `output` is what it said; `json` that text as JSON, or null when
/// it is none; `status` is `completed`; `input` is what it was asked.
pub const CONDITION_NAMES: [&str; 4] = ["output", "json", "status", "input"];

const DEBATE_ROUNDS: u32 = 2;
const SWARM_ROUNDS: u32 = 5;
const MAX_ID: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A model picks who answers.
    Route,
    /// One after the other; each sees what was answered so far, and the last answer counts.
    Sequential,
    /// One after the other; each sees what the one before made, and nothing else.
    Pipeline,
    /// Rounds in which each sees what the others said last; then one concludes.
    Debate,
    /// Nodes that run when what they depend on has been decided.
    Graph,
    /// They hand over to each other until one answers.
    Swarm,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Sequential => "sequential",
            Self::Pipeline => "pipeline",
            Self::Debate => "debate",
            Self::Graph => "graph",
            Self::Swarm => "swarm",
        }
    }
}

/// An agent as it was when the run was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub agent_id: String,
    pub agent_version: i64,
    pub name: String,
    pub description: String,
}

/// `members` are in the order in which they were named; a plan names them by their place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Team {
    pub members: Vec<Member>,
    pub plan: Plan,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Plan {
    Route,
    Sequential,
    Pipeline,
    /// `size` members debate; `aggregator` concludes.
    Debate {
        rounds: u32,
        size: usize,
        aggregator: usize,
    },
    Graph {
        nodes: Vec<Node>,
        edges: Vec<Edge>,
    },
    /// `size` members hand over to each other, at most `max_rounds` turns in all; then the aggregator answers, where there is one.
    Swarm {
        max_rounds: u32,
        size: usize,
        aggregator: Option<usize>,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub id: String,
    pub member: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    pub source: String,
    pub target: String,
    /// CEL, over `CONDITION_NAMES`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

impl Team {
    pub fn mode(&self) -> Mode {
        match self.plan {
            Plan::Route => Mode::Route,
            Plan::Sequential => Mode::Sequential,
            Plan::Pipeline => Mode::Pipeline,
            Plan::Debate { .. } => Mode::Debate,
            Plan::Graph { .. } => Mode::Graph,
            Plan::Swarm { .. } => Mode::Swarm,
        }
    }

    /// What models call the members: their names, told apart where two have the same.
    pub fn labels(&self) -> Vec<String> {
        let label = |(at, member): (usize, &Member)| {
            let same = self.members[..at].iter().filter(|m| m.name == member.name).count();
            if same == 0 { member.name.clone() } else { format!("{} {}", member.name, same + 1) }
        };
        self.members.iter().enumerate().map(label).collect()
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Draft {
    pub mode: Mode,
    /// Of a graph: empty.
    pub agent_ids: Vec<String>,
    pub rounds: Option<u32>,
    pub aggregator: Option<String>,
    pub nodes: Vec<DraftNode>,
    pub edges: Vec<Edge>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DraftNode {
    pub id: String,
    pub agent_id: String,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_agents: usize,
    pub max_nodes: usize,
    pub max_rounds: u32,
}

impl Draft {
    pub fn of(mode: Mode, agent_ids: Vec<String>) -> Self {
        Self { mode, agent_ids, rounds: None, aggregator: None, nodes: Vec::new(), edges: Vec::new() }
    }

    /// The plan, and the ids of the agents that its numbers mean.
    ///
    /// # Errors
    /// `Invalid`, naming every bad field.
    pub fn plan(self, limits: &Limits) -> Result<(Vec<String>, Plan)> {
        let mut bad = Bad::default();
        if self.mode == Mode::Graph {
            let planned = bad.graph(self.nodes, self.edges, limits);
            return bad.finish(planned);
        }
        bad.agents(self.mode, &self.agent_ids, limits);
        let default = if self.mode == Mode::Debate { DEBATE_ROUNDS } else { SWARM_ROUNDS };
        let rounds = self.rounds.unwrap_or(default.min(limits.max_rounds));
        let takes_rounds = matches!(self.mode, Mode::Debate | Mode::Swarm);
        let field = if self.mode == Mode::Swarm { "max_rounds" } else { "rounds" };
        if takes_rounds && !(1..=limits.max_rounds).contains(&rounds) {
            bad.fail(field, format!("must be 1 to {}", limits.max_rounds));
        } else if !takes_rounds && self.rounds.is_some() {
            bad.fail(field, "only a debate has rounds");
        }
        if !takes_rounds && self.aggregator.is_some() {
            bad.fail("aggregator", "only a debate and a swarm have one");
        }
        let mut agents = self.agent_ids;
        let size = agents.len();
        let aggregator = self.aggregator.map(|id| place(&mut agents, id));
        let plan = match self.mode {
            Mode::Route => Plan::Route,
            Mode::Pipeline => Plan::Pipeline,
            Mode::Debate => Plan::Debate { rounds, size, aggregator: aggregator.unwrap_or(0) },
            Mode::Swarm => Plan::Swarm { max_rounds: rounds, size, aggregator },
            Mode::Sequential | Mode::Graph => Plan::Sequential,
        };
        bad.finish((agents, plan))
    }
}

/// Where an agent is in the list, which it joins when it is new.
fn place(agents: &mut Vec<String>, id: String) -> usize {
    if let Some(at) = agents.iter().position(|a| *a == id) {
        return at;
    }
    agents.push(id);
    agents.len() - 1
}

#[derive(Default)]
struct Bad(Vec<FieldError>);

impl Bad {
    fn fail(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), message: message.into() });
    }

    fn finish<T>(self, value: T) -> Result<T> {
        if self.0.is_empty() { Ok(value) } else { Err(Error::invalid_fields(self.0)) }
    }

    fn agents(&mut self, mode: Mode, ids: &[String], limits: &Limits) {
        let least = if mode == Mode::Debate { 2 } else { 1 };
        if !(least..=limits.max_agents).contains(&ids.len()) {
            self.fail("agent_ids", format!("must be {least} to {} agents", limits.max_agents));
        }
        // One who speaks once in each round is not two; a line may come back to one.
        if matches!(mode, Mode::Sequential | Mode::Pipeline) {
            return;
        }
        for (i, id) in ids.iter().enumerate() {
            if let Some(first) = ids[..i].iter().position(|other| other == id) {
                self.fail(format!("agent_ids.{i}"), format!("repeats agent_ids.{first}"));
            }
        }
    }

    fn graph(&mut self, drafts: Vec<DraftNode>, edges: Vec<Edge>, limits: &Limits) -> (Vec<String>, Plan) {
        if !(1..=limits.max_nodes).contains(&drafts.len()) {
            self.fail("nodes", format!("must be 1 to {} nodes", limits.max_nodes));
        }
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (i, node) in drafts.iter().enumerate() {
            if !(1..=MAX_ID).contains(&node.id.chars().count()) {
                self.fail(format!("nodes.{i}.id"), format!("must be 1 to {MAX_ID} characters"));
            }
            if let Some(first) = first.insert(&node.id, i) {
                self.fail(format!("nodes.{i}.id"), format!("repeats nodes.{first}.id"));
            }
        }
        let before = self.0.len();
        self.edges(&edges, &first);
        if self.0.len() == before
            && let Some(cycle) = cycle(&drafts, &edges)
        {
            self.fail("edges", format!("there is a cycle: {}", cycle.join(" → ")));
        }
        let mut agents = Vec::new();
        let nodes: Vec<_> =
            drafts.into_iter().map(|draft| Node { member: place(&mut agents, draft.agent_id), id: draft.id }).collect();
        if agents.len() > limits.max_agents {
            self.fail("nodes", format!("at most {} agents", limits.max_agents));
        }
        (agents, Plan::Graph { nodes, edges })
    }

    fn edges(&mut self, edges: &[Edge], nodes: &HashMap<&str, usize>) {
        let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
        for (i, edge) in edges.iter().enumerate() {
            for (end, id) in [("source", &edge.source), ("target", &edge.target)] {
                if !nodes.contains_key(id.as_str()) {
                    self.fail(format!("edges.{i}.{end}"), "there is no such node");
                }
            }
            if let Some(first) = seen.insert((&edge.source, &edge.target), i) {
                self.fail(format!("edges.{i}"), format!("repeats edges.{first}"));
            }
            if let Some(Err(problem)) = edge.condition.as_deref().map(|text| Condition::parse(text, &CONDITION_NAMES)) {
                self.fail(format!("edges.{i}.condition"), problem);
            }
        }
    }
}

/// The nodes of a cycle, the first one at both ends.
fn cycle(nodes: &[DraftNode], edges: &[Edge]) -> Option<Vec<String>> {
    let mut left: Vec<&str> = nodes.iter().map(|n| n.id.as_str()).collect();
    // What no remaining node leads to is in no cycle.
    loop {
        let is_led_to = |id: &str| edges.iter().any(|e| e.target == id && left.contains(&e.source.as_str()));
        let kept: Vec<&str> = left.iter().copied().filter(|id| is_led_to(id)).collect();
        if kept.len() == left.len() {
            break;
        }
        left = kept;
    }
    // Each that is left has one before it that is left too: going back, one comes again.
    let mut path = vec![*left.first()?];
    loop {
        let at = path[path.len() - 1];
        let before = edges.iter().find(|e| e.target == at && left.contains(&e.source.as_str()))?.source.as_str();
        if let Some(first) = path.iter().position(|id| *id == before) {
            let mut cycle: Vec<_> = path[first..].iter().rev().map(|id| (*id).to_owned()).collect();
            cycle.push(cycle[0].clone());
            return Some(cycle);
        }
        path.push(before);
    }
}

/// The agents of a workflow's design, with the edges between them: what `execute` runs as a graph when it is given no other. A node
/// that names no agent means `itself`; what is no agent (a start, an end) is left out.
pub fn of_workflow(workflow: &Value, itself: &str) -> (Vec<DraftNode>, Vec<Edge>) {
    let list = |name: &str| workflow[name].as_array().map_or(&[][..], Vec::as_slice);
    let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
    let node = |n: &Value| {
        let agent = text(n, "agent_id").or_else(|| text(&n["data"], "agent_id")).or_else(|| text(&n["config"], "agent_id"));
        Some(DraftNode { id: text(n, "id")?, agent_id: agent.unwrap_or_else(|| itself.to_owned()) })
    };
    let nodes: Vec<_> = list("nodes").iter().filter(|n| n["type"] == "agent").filter_map(node).collect();
    let is_agent = |id: &str| nodes.iter().any(|n| n.id == id);
    let edge = |e: &Value| Some(Edge { source: text(e, "source")?, target: text(e, "target")?, condition: text(e, "condition") });
    let edges = list("edges").iter().filter_map(edge).filter(|e| is_agent(&e.source) && is_agent(&e.target)).collect();
    (nodes, edges)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIMITS: Limits = Limits { max_agents: 3, max_nodes: 4, max_rounds: 10 };

    fn fields(draft: Draft) -> Vec<String> {
        draft.plan(&LIMITS).unwrap_err().fields.into_iter().map(|f| f.field).collect()
    }

    fn ids(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn graph(nodes: &str, edges: &[(&str, &str)]) -> Draft {
        let node = |id: String| DraftNode { agent_id: format!("agent-{id}"), id };
        let edge = |(s, t): &(&str, &str)| Edge { source: (*s).into(), target: (*t).into(), condition: None };
        Draft {
            nodes: ids(nodes).into_iter().map(node).collect(),
            edges: edges.iter().map(edge).collect(),
            ..Draft::of(Mode::Graph, Vec::new())
        }
    }

    #[test]
    fn a_plan_names_its_agents_by_their_place() {
        let debate = Draft { aggregator: Some("c".into()), ..Draft::of(Mode::Debate, ids("a b")) };
        assert_eq!(debate.plan(&LIMITS).unwrap(), (ids("a b c"), Plan::Debate { rounds: 2, size: 2, aggregator: 2 }));
        let swarm = Draft { aggregator: Some("a".into()), rounds: Some(10), ..Draft::of(Mode::Swarm, ids("a b")) };
        assert_eq!(swarm.plan(&LIMITS).unwrap(), (ids("a b"), Plan::Swarm { max_rounds: 10, size: 2, aggregator: Some(0) }));
        assert_eq!(Draft::of(Mode::Pipeline, ids("a b a")).plan(&LIMITS).unwrap(), (ids("a b a"), Plan::Pipeline));
        let (agents, plan) = graph("x y", &[("x", "y")]).plan(&LIMITS).unwrap();
        assert_eq!(agents, ids("agent-x agent-y"));
        assert!(matches!(plan, Plan::Graph { nodes, .. } if nodes[1] == Node { id: "y".into(), member: 1 }));
    }

    #[test]
    fn every_bad_field_is_named() {
        let bad = Draft { rounds: Some(11), ..Draft::of(Mode::Debate, ids("a")) };
        assert_eq!(fields(bad), ["agent_ids", "rounds"]);
        let bad = Draft { rounds: Some(0), ..Draft::of(Mode::Swarm, ids("a b a")) };
        assert_eq!(fields(bad), ["agent_ids.2", "max_rounds"]);
        let bad = Draft { rounds: Some(1), aggregator: Some("a".into()), ..Draft::of(Mode::Route, ids("a b c d")) };
        assert_eq!(fields(bad), ["agent_ids", "rounds", "aggregator"]);
        assert_eq!(fields(Draft::of(Mode::Sequential, Vec::new())), ["agent_ids"]);
    }

    #[test]
    fn a_graph_has_no_cycle_and_no_loose_end() {
        assert_eq!(fields(graph("", &[])), ["nodes"]);
        assert_eq!(fields(graph("a a", &[])), ["nodes.1.id"]);
        assert_eq!(
            fields(graph("a b", &[("a", "z"), ("y", "b"), ("a", "b"), ("a", "b")])),
            ["edges.0.target", "edges.1.source", "edges.3"]
        );
        let cyclic = graph("s a b c", &[("s", "a"), ("a", "b"), ("b", "c"), ("c", "a")]);
        let message = cyclic.plan(&LIMITS).unwrap_err().message;
        assert!(["a → b → c → a", "b → c → a → b", "c → a → b → c"].iter().any(|c| message.contains(c)), "{message}");
        assert_eq!(fields(graph("a", &[("a", "a")])), ["edges"]);
        let mut conditional = graph("a b", &[("a", "b")]);
        conditional.edges[0].condition = Some("nobody == 1".into());
        assert_eq!(fields(conditional), ["edges.0.condition"]);
        assert!(graph("a b c", &[("a", "b"), ("a", "c"), ("b", "c")]).plan(&LIMITS).is_ok());
    }

    #[test]
    fn a_workflow_is_the_graph_of_its_agents() {
        let workflow = json!({
            "nodes": [{ "id": "start", "type": "start" }, { "id": "a", "type": "agent", "label": "A" },
                { "id": "b", "type": "agent", "data": { "agent_id": "other" } }, { "id": "end", "type": "end" }],
            "edges": [{ "source": "start", "target": "a" }, { "source": "a", "target": "b", "condition": "true" }],
        });
        let (nodes, edges) = of_workflow(&workflow, "me");
        let node = |id: &str, agent: &str| DraftNode { id: id.into(), agent_id: agent.into() };
        assert_eq!(nodes, [node("a", "me"), node("b", "other")]);
        assert_eq!(edges, [Edge { source: "a".into(), target: "b".into(), condition: Some("true".into()) }]);
        assert_eq!(of_workflow(&Value::Null, "me").0, []);
    }

    #[test]
    fn members_of_one_name_are_told_apart() {
        let member =
            |name: &str| Member { agent_id: name.into(), agent_version: 1, name: name.into(), description: String::new() };
        let team = Team { members: ["A", "B", "A"].map(member).into(), plan: Plan::Route };
        assert_eq!(team.labels(), ["A", "B", "A 2"]);
    }
}
