//! A graph: a node runs when all edges that lead to it are decided and one of them is true, or when none leads to it; the others are
//! skipped. What the last nodes of each way say is the answer.
use std::collections::HashMap;

use runmill_shared::{
    domain::{
        condition::Condition,
        team::{CONDITION_NAMES, Edge, Node},
    },
    jobs::TeamRun,
};
use serde_json::{Value, json};

use super::{Answers, Next, Turn, statements};
use crate::engine::Failure;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State<'a> {
    /// Something before it has not been decided.
    Blocked,
    Skipped,
    /// It runs, or is to.
    Asked,
    Said(&'a str),
}

struct Walk<'a> {
    input: &'a TeamRun,
    answers: &'a Answers,
    nodes: &'a [Node],
    edges: &'a [Edge],
    labels: HashMap<&'a str, String>,
    states: HashMap<&'a str, State<'a>>,
    prompts: HashMap<&'a str, String>,
}

pub fn next(input: &TeamRun, answers: &Answers, nodes: &[Node], edges: &[Edge]) -> Result<Next, Failure> {
    let names = input.team.labels();
    let labels = nodes.iter().map(|n| (n.id.as_str(), format!("{} ({})", n.id, names[n.member]))).collect();
    let mut walk = Walk { input, answers, nodes, edges, labels, states: HashMap::new(), prompts: HashMap::new() };
    // In an order in which what leads to a node comes before it: the graph has no cycle, so that each pass decides at least one.
    while walk.states.len() < nodes.len() {
        let known = walk.states.len();
        for node in nodes {
            walk.visit(node)?;
        }
        if walk.states.len() == known {
            return Err(Failure::run("INPUT_UNREADABLE", "the graph has a cycle", false));
        }
    }
    Ok(walk.next())
}

impl<'a> Walk<'a> {
    fn visit(&mut self, node: &'a Node) -> Result<(), Failure> {
        let leading: Vec<&Edge> = self.edges.iter().filter(|e| e.target == node.id).collect();
        let is_known = leading.iter().all(|e| self.states.contains_key(e.source.as_str()));
        if !is_known || self.states.contains_key(node.id.as_str()) {
            return Ok(());
        }
        let mut taken = Vec::new();
        let mut is_blocked = false;
        for edge in &leading {
            match self.states[edge.source.as_str()] {
                State::Blocked | State::Asked => is_blocked = true,
                State::Skipped => {}
                State::Said(output) if self.holds(edge, output)? => {
                    taken.push((self.labels[edge.source.as_str()].as_str(), output))
                }
                State::Said(_) => {}
            }
        }
        let state = if is_blocked {
            State::Blocked
        } else if !leading.is_empty() && taken.is_empty() {
            State::Skipped
        } else {
            let prompt = match taken.is_empty() {
                true => self.input.message.clone(),
                false => format!("{}\n\nWhat came before:\n\n{}", self.input.message, statements(taken.into_iter())),
            };
            self.prompts.insert(&node.id, prompt);
            self.answers.get(&key(node)).map_or(State::Asked, |answer| State::Said(&answer.content))
        };
        self.states.insert(&node.id, state);
        Ok(())
    }

    fn holds(&self, edge: &Edge, output: &str) -> Result<bool, Failure> {
        let Some(text) = &edge.condition else { return Ok(true) };
        let json: Value = serde_json::from_str(output).unwrap_or_default();
        let input = self.prompts.get(edge.source.as_str()).cloned().unwrap_or_default();
        let values =
            vec![("output", Value::from(output)), ("json", json), ("status", json!("completed")), ("input", Value::from(input))];
        let held = Condition::parse(text, &CONDITION_NAMES).and_then(|condition| condition.holds(values));
        held.map_err(|why| {
            let message = format!("the condition from {} to {} cannot be evaluated: {why}", edge.source, edge.target);
            Failure::run("CONDITION_FAILED", message, false)
        })
    }

    fn next(self) -> Next {
        let asked = self.nodes.iter().filter(|n| self.states[n.id.as_str()] == State::Asked);
        let turn = |n: &Node| Turn::new(key(n), n.member, self.prompts[n.id.as_str()].clone());
        let turns: Vec<_> = asked.map(turn).collect();
        if !turns.is_empty() {
            return Next::Ask(turns);
        }
        let said = |id: &str| match self.states[id] {
            State::Said(output) => Some(output),
            _ => None,
        };
        // An end is a node after which nothing ran.
        let goes_on = |id: &str| self.edges.iter().any(|e| e.source == id && said(&e.target).is_some() && self.was_taken(e));
        let ends: Vec<_> =
            self.nodes.iter().filter(|n| !goes_on(&n.id)).filter_map(|n| Some((n.id.as_str(), said(&n.id)?))).collect();
        Next::Conclude(match ends.as_slice() {
            [(_, only)] => (*only).to_owned(),
            several => statements(several.iter().map(|(id, output)| (self.labels[id].as_str(), *output))),
        })
    }

    fn was_taken(&self, edge: &Edge) -> bool {
        match self.states[edge.source.as_str()] {
            State::Said(output) => self.holds(edge, output).unwrap_or(false),
            _ => false,
        }
    }
}

fn key(node: &Node) -> String {
    format!("node:{}", node.id)
}

#[cfg(test)]
mod tests {
    use runmill_shared::domain::team::Plan;

    use super::super::{
        Answer, Turn,
        tests::{keys, play, says, team},
    };
    use super::*;

    /// `a>b` is an edge, `a>b:CEL` one with a condition.
    fn graph(nodes: &str, edges: &[&str]) -> TeamRun {
        let node = |(member, id): (usize, &str)| Node { id: id.into(), member };
        let edge = |text: &&str| {
            let (ends, condition) = text.split_once(':').map_or((*text, None), |(ends, c)| (ends, Some(c.to_owned())));
            let (source, target) = ends.split_once('>').unwrap();
            Edge { source: source.into(), target: target.into(), condition }
        };
        let nodes = nodes.split_whitespace().enumerate().map(node).collect();
        team(4, Plan::Graph { nodes, edges: edges.iter().map(edge).collect() })
    }

    fn by_key(turn: &Turn) -> Answer {
        says(&format!("said {}", turn.key))
    }

    #[test]
    fn branches_run_at_once_and_meet() {
        let (asked, content) = play(&graph("s l r e", &["s>l", "s>r", "l>e", "r>e"]), by_key);
        assert_eq!(keys(&asked), [vec!["node:s"], vec!["node:l", "node:r"], vec!["node:e"]]);
        assert!(asked[2][0].1.starts_with("question\n\nWhat came before:\n\n## l (b)\nsaid node:l\n\n## r (c)"), "{asked:?}");
        assert_eq!(content, "said node:e");
    }

    #[test]
    fn a_node_without_a_true_edge_is_skipped_and_so_is_what_hangs_on_it() {
        let edges = ["s>l:output.contains('left')", "s>r:!output.contains('left')", "r>e"];
        let (asked, content) = play(&graph("s l r e", &edges), |turn| says(if turn.key == "node:s" { "left" } else { "ok" }));
        assert_eq!((keys(&asked), content.as_str()), (vec![vec!["node:s"], vec!["node:l"]], "ok"));
        // What is skipped does not hold up what has another way.
        let edges = ["s>l:false", "l>e", "s>e"];
        let (asked, _) = play(&graph("s l e", &edges), by_key);
        assert_eq!(keys(&asked), [["node:s"], ["node:e"]]);
    }

    #[test]
    fn conditions_read_json_and_all_ends_are_joined() {
        let edges = ["s>l:json.score > 0.5 && status == 'completed' && input == 'question'", "s>r"];
        let (asked, content) = play(&graph("s l r", &edges), |turn| match turn.key.as_str() {
            "node:s" => says(r#"{"score": 0.7}"#),
            _ => by_key(turn),
        });
        assert_eq!(keys(&asked), [vec!["node:s"], vec!["node:l", "node:r"]]);
        assert_eq!(content, "## l (b)\nsaid node:l\n\n## r (c)\nsaid node:r");
        // Nothing is after the first node when no edge is true: its answer counts.
        let (asked, content) = play(&graph("s l", &["s>l:false"]), by_key);
        assert_eq!((asked.len(), content.as_str()), (1, "said node:s"));
    }

    #[test]
    fn a_branch_does_not_wait_for_another() {
        let input = graph("s l r x", &["s>l", "s>r", "l>x"]);
        let answers = Answers(["s", "l"].map(|id| (format!("node:{id}"), says(id))).into());
        let Ok(Next::Ask(turns)) = super::super::next(&input, &answers, None) else { panic!("nobody is asked") };
        assert_eq!(turns.iter().map(|t| t.key.as_str()).collect::<Vec<_>>(), ["node:r", "node:x"]);
    }

    #[test]
    fn a_condition_that_cannot_be_evaluated_fails_the_run() {
        let input = graph("s l", &["s>l:json.score > 1"]);
        let answers = Answers([("node:s".to_owned(), says("no json"))].into());
        let Err(Failure::Run { error, .. }) = super::super::next(&input, &answers, None) else { panic!("it goes on") };
        assert!(error.code == "CONDITION_FAILED" && error.message.contains("from s to l"), "{error:?}");
    }
}
