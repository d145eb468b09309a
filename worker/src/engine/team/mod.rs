//! A team at work. Each mode is a function of the plan and of what the journal has, which says whom to ask next; the driver here starts
//! each participant as a child run, journaled under the key of its turn, and lets the team be parked until one of them ends. So a
//! crash anywhere forgets nothing, and a team that waits holds no worker.
mod children;
mod debate;
mod graph;
mod pipeline;
mod route;
mod sequential;
mod swarm;

use std::{collections::HashMap, sync::Arc};

use runmill_shared::{
    App,
    domain::{
        event::{NewEvent, kind},
        message::{MessageBody, MessageRole, NewMessage},
        new_id,
        run::{Claimed, RunUsage, Waiting},
        step::StepKind,
        team::{Plan, Team},
    },
    jobs::TeamRun,
    services::runs::execution::{self, End, Parked},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Failure, Left,
    journal::Journal,
    recorder::{Recorder, writes},
};

/// What a participant is asked. The key is its place in the journal, and follows from the plan.
#[derive(Debug, PartialEq)]
struct Turn {
    key: String,
    member: usize,
    prompt: String,
    /// Whether it sees the session's earlier messages.
    with_history: bool,
    /// Whom it may hand over to.
    hand_over: Vec<String>,
    /// Whether the team goes on without it.
    may_fail: bool,
}

impl Turn {
    fn new(key: String, member: usize, prompt: String) -> Self {
        Self { key, member, prompt, with_history: true, hand_over: Vec::new(), may_fail: false }
    }
}

/// The key of a member's turn in a round.
fn member_key(round: u32, member: usize) -> String {
    format!("member:{round}:{member}")
}

/// What a participant came to, as the journal keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Answer {
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hand_over: Option<HandOver>,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct HandOver {
    /// As the model named it.
    agent: String,
    message: String,
}

/// The answers so far, by the keys of their turns.
#[derive(Debug, Default)]
struct Answers(HashMap<String, Answer>);

impl Answers {
    fn get(&self, key: &str) -> Option<&Answer> {
        self.0.get(key)
    }
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
enum Next {
    /// These have to answer, all at once.
    Ask(Vec<Turn>),
    Conclude(String),
}

fn next(input: &TeamRun, answers: &Answers, chosen: Option<usize>) -> Result<Next, Failure> {
    match &input.team.plan {
        Plan::Route => Ok(route::next(input, answers, chosen.unwrap_or(0))),
        Plan::Sequential => Ok(sequential::next(input, answers)),
        Plan::Pipeline => Ok(pipeline::next(input, answers)),
        Plan::Debate { rounds, size, aggregator } => debate::next(input, answers, *rounds, *size, *aggregator),
        Plan::Graph { nodes, edges } => graph::next(input, answers, nodes, edges),
        Plan::Swarm { max_rounds, size, aggregator } => Ok(swarm::next(input, answers, *max_rounds, *size, *aggregator)),
    }
}

/// What several have said, under their names.
fn statements<'a>(said: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    said.map(|(name, content)| format!("## {name}\n{content}")).collect::<Vec<_>>().join("\n\n")
}

/// One team run in the hands of this worker.
struct Driver<'a> {
    app: &'a App,
    journal: Journal,
    input: TeamRun,
    labels: Vec<String>,
    /// What the team itself has used.
    usage: RunUsage,
    wake_seq: i64,
    /// The session's earlier messages, once somebody has to see them.
    history: Option<Vec<NewMessage>>,
}

/// Executes a team run until it ends or has to wait for its participants.
pub async fn execute(app: &App, recorder: &Recorder, run: Arc<Claimed>) -> Result<Left, Failure> {
    let input: TeamRun =
        serde_json::from_value(run.input.clone()).map_err(|e| Failure::run("INPUT_UNREADABLE", e.to_string(), false))?;
    let journal = Journal::open(app, run.clone(), recorder.clone()).await?;
    let started = json!({ "attempt": run.attempt + 1, "agentId": Value::Null, "model": Value::Null, "mode": input.team.mode() });
    journal.emit(NewEvent::new(kind::RUN_STARTED, started));
    let labels = input.team.labels();
    let wake_seq = run.wake_seq;
    Driver { app, journal, input, labels, usage: RunUsage::default(), wake_seq, history: None }.drive().await
}

impl Driver<'_> {
    async fn drive(mut self) -> Result<Left, Failure> {
        if self.journal.checkpoint(self.app, None).await? {
            return Ok(Left::Parked);
        }
        let chosen = match self.input.team.plan {
            Plan::Route => Some(route::choose(self.app, &mut self.journal, &self.input, &mut self.usage).await?),
            _ => None,
        };
        loop {
            let turns = match next(&self.input, &self.answers()?, chosen)? {
                Next::Conclude(content) => return self.succeed(content).await,
                Next::Ask(turns) => turns,
            };
            if self.journal.checkpoint(self.app, None).await? {
                return Ok(Left::Parked);
            }
            let mut running = Vec::with_capacity(turns.len());
            for turn in &turns {
                running.push(match self.child_of(&turn.key) {
                    Some(child) => child,
                    None => self.start(turn).await?,
                });
            }
            if !self.settle(&turns).await? && self.park(Waiting::Children { runs: running, until: None }).await? {
                return Ok(Left::Parked);
            }
        }
    }

    fn answers(&self) -> Result<Answers, Failure> {
        let ended = self.journal.steps().filter(|s| s.kind == StepKind::Child);
        let answer = |(key, result): (&String, &Value)| Ok((key.clone(), serde_json::from_value(result.clone())?));
        let read: Result<_, serde_json::Error> = ended.filter_map(|s| Some((&s.key, s.result.as_ref()?))).map(answer).collect();
        read.map(Answers).map_err(|e| Failure::run("JOURNAL_UNREADABLE", e.to_string(), false))
    }

    fn child_of(&self, key: &str) -> Option<Uuid> {
        self.journal.step(key)?.intent["childRunId"].as_str()?.parse().ok()
    }

    /// `false`: something happened meanwhile, look again.
    async fn park(&mut self, waiting: Waiting) -> Result<bool, Failure> {
        match self.journal.park(self.app, self.wake_seq, &waiting).await? {
            Parked::Yes => Ok(true),
            Parked::Woken(seq) => {
                self.wake_seq = seq;
                Ok(false)
            }
        }
    }

    /// Those that took part, in the order in which they were started.
    fn participants(&self) -> Vec<Value> {
        let mut steps: Vec<_> = self.journal.steps().filter(|s| s.kind == StepKind::Child).collect();
        steps.sort_by_key(|s| s.ordinal);
        let participant = |step: &runmill_shared::domain::step::Step| {
            let result = step.result.as_ref()?;
            let failed = &result["failed"];
            let mut participant = json!({
                "agent_id": step.intent["agentId"], "execution_id": step.intent["childRunId"], "content": result["content"],
            });
            if !failed.is_null() {
                participant["content"] = Value::Null;
                participant["error"] = failed.clone();
            }
            Some(participant)
        };
        steps.into_iter().filter_map(participant).collect()
    }

    /// What the team has used: its own question to a model, and what its participants' rows say.
    async fn total_usage(&self) -> Result<RunUsage, Failure> {
        let ids: Vec<_> = self.journal.steps().filter_map(|s| self.child_of(&s.key)).collect();
        let mut total = self.usage;
        for used in execution::outcomes(self.app, &ids).await?.into_iter().filter_map(|o| o.usage) {
            total.input_tokens += used.input_tokens;
            total.output_tokens += used.output_tokens;
            total.cached_input_tokens += used.cached_input_tokens;
            total.cost_micros += used.cost_micros;
        }
        Ok(total)
    }

    /// Ends the run; the answer is one message of the session.
    async fn succeed(self, content: String) -> Result<Left, Failure> {
        let usage = self.total_usage().await?;
        let id = format!("msg-{}", new_id());
        let result = json!({ "messageId": id, "content": content, "participants": self.participants() });
        let event = |kind, data| NewEvent::new(kind, data);
        let mut events = vec![event(kind::MESSAGE_STARTED, json!({ "messageId": id, "role": "assistant" }))];
        if !content.is_empty() {
            events.push(event(kind::TEXT_DELTA, json!({ "messageId": id, "delta": content })));
        }
        events.push(event(kind::MESSAGE_FINISHED, json!({ "messageId": id, "role": "assistant", "content": content })));
        events.push(NewEvent::finished(&result, usage, &[]));
        let message = NewMessage { id, role: MessageRole::Assistant, body: MessageBody::text(content) };
        let end = End::succeeded(result).using(usage);
        self.journal.recorder.end(&self.journal.run, end, writes(events, Vec::new(), vec![message])).await?;
        Ok(Left::Ended)
    }
}

/// A participant without which the team cannot go on.
fn participant_failed(team: &Team, member: usize, why: &str) -> Failure {
    let member = &team.members[member];
    Failure::run("PARTICIPANT_FAILED", format!("{} ({}) failed: {why}", member.name, member.agent_id), false)
}

#[cfg(test)]
mod tests {
    use runmill_shared::domain::team::Member;

    use super::*;

    /// A team of agents `a`, `b`, `c` … that are asked `question`.
    pub fn team(size: usize, plan: Plan) -> TeamRun {
        let member = |i: usize| {
            let name = ["a", "b", "c", "d"][i].to_owned();
            Member { agent_id: format!("id-{name}"), agent_version: 1, name, description: String::new() }
        };
        let team = Team { members: (0..size).map(member).collect(), plan };
        TeamRun { team, message_id: "m".into(), message: "question".into() }
    }

    /// Follows the plan to its end: everybody answers at once. Answers the keys in the order of the rounds, each with its prompt.
    pub fn play(input: &TeamRun, answer: impl Fn(&Turn) -> Answer) -> (Vec<Vec<(String, String)>>, String) {
        let (mut answers, mut asked) = (Answers::default(), Vec::new());
        for _ in 0..100 {
            let turns = match next(input, &answers, Some(0)).unwrap() {
                Next::Conclude(content) => return (asked, content),
                Next::Ask(turns) => turns,
            };
            assert!(!turns.is_empty(), "nobody is asked");
            for turn in &turns {
                assert!(answers.0.insert(turn.key.clone(), answer(turn)).is_none(), "{} is asked twice", turn.key);
            }
            asked.push(turns.into_iter().map(|t| (t.key, t.prompt)).collect());
        }
        panic!("the plan does not end");
    }

    pub fn says(content: &str) -> Answer {
        Answer { content: content.to_owned(), ..Answer::default() }
    }

    pub fn keys(asked: &[Vec<(String, String)>]) -> Vec<Vec<&str>> {
        asked.iter().map(|round| round.iter().map(|(key, _)| key.as_str()).collect()).collect()
    }

    #[test]
    fn an_answer_survives_the_journal() {
        let answer = Answer { hand_over: Some(HandOver { agent: "b".into(), message: "do".into() }), ..says("x") };
        assert_eq!(serde_json::from_value::<Answer>(serde_json::to_value(&answer).unwrap()).unwrap(), answer);
    }
}
