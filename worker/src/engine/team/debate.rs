//! Rounds in which all speak at once, each knowing what the others said last; then one concludes. Who fails is left out from then on.
use runmill_shared::{domain::team::Team, jobs::TeamRun};

use super::{Answers, Next, Turn, member_key, participant_failed, statements};
use crate::engine::Failure;

pub fn next(input: &TeamRun, answers: &Answers, rounds: u32, size: usize, aggregator: usize) -> Result<Next, Failure> {
    let labels = input.team.labels();
    // Who still takes part, with what they said last.
    let mut present: Vec<(usize, &str)> = (0..size).map(|member| (member, "")).collect();
    let mut failed = None;
    for round in 0..rounds {
        let mut missing = Vec::new();
        let mut spoke = Vec::new();
        for (member, _) in &present {
            let key = member_key(round, *member);
            match answers.get(&key) {
                Some(answer) => match &answer.failed {
                    Some(why) => failed = Some((*member, why.as_str())),
                    None => spoke.push((*member, answer.content.as_str())),
                },
                None => {
                    let prompt = prompt(input, &labels, &present, *member, round);
                    missing.push(Turn { may_fail: true, ..Turn::new(key, *member, prompt) });
                }
            }
        }
        if !missing.is_empty() {
            return Ok(Next::Ask(missing));
        }
        present = spoke;
        if let (true, Some((member, why))) = (present.is_empty(), failed) {
            return Err(participant_failed(&input.team, member, why));
        }
    }
    let concludes = conclude_by(&input.team, &present, size, aggregator);
    let key = member_key(rounds, concludes);
    if let Some(answer) = answers.get(&key) {
        return Ok(Next::Conclude(answer.content.clone()));
    }
    let said = statements(present.iter().map(|(member, said)| (labels[*member].as_str(), *said)));
    let prompt =
        format!("{}\n\nThis was debated. What each said last:\n\n{said}\n\nConclude: give the final answer.", input.message);
    Ok(Next::Ask(vec![Turn::new(key, concludes, prompt)]))
}

fn prompt(input: &TeamRun, labels: &[String], present: &[(usize, &str)], member: usize, round: u32) -> String {
    if round == 0 {
        return input.message.clone();
    }
    let others = present.iter().filter(|(other, _)| *other != member);
    let others = statements(others.map(|(other, said)| (labels[*other].as_str(), *said)));
    let own = present.iter().find(|(m, _)| *m == member).map_or("", |(_, said)| *said);
    format!(
        "{}\n\nYou said:\n\n{own}\n\nThe others said:\n\n{others}\n\nAnswer them: correct what is wrong, keep what is right, and say where \
         you stand now.",
        input.message
    )
}

/// One of the debaters who failed is replaced by the first that is left.
fn conclude_by(team: &Team, present: &[(usize, &str)], size: usize, aggregator: usize) -> usize {
    let is_there = aggregator >= size || present.iter().any(|(member, _)| *member == aggregator);
    let first = present.first().map_or(0, |(member, _)| *member);
    if is_there { aggregator.min(team.members.len() - 1) } else { first }
}

#[cfg(test)]
mod tests {
    use runmill_shared::domain::team::Plan;

    use super::super::{
        Answer, Turn,
        tests::{keys, play, says, team},
    };
    use super::*;

    fn debate(aggregator: usize) -> TeamRun {
        team(3, Plan::Debate { rounds: 2, size: 2, aggregator })
    }

    fn by_key(turn: &Turn) -> Answer {
        says(&format!("said {}", turn.key))
    }

    #[test]
    fn each_sees_what_the_others_said_last() {
        let (asked, content) = play(&debate(2), by_key);
        assert_eq!(keys(&asked), [vec!["member:0:0", "member:0:1"], vec!["member:1:0", "member:1:1"], vec!["member:2:2"]]);
        assert_eq!((asked[0][1].1.as_str(), content.as_str()), ("question", "said member:2:2"));
        assert!(asked[1][0].1.contains("You said:\n\nsaid member:0:0\n\nThe others said:\n\n## b\nsaid member:0:1"), "{asked:?}");
        assert!(asked[2][0].1.contains("## a\nsaid member:1:0\n\n## b\nsaid member:1:1"), "{asked:?}");
    }

    #[test]
    fn it_goes_on_without_who_fails() {
        let failing = |turn: &Turn| match turn.key.as_str() {
            "member:0:0" => Answer { failed: Some("no".into()), ..Answer::default() },
            _ => by_key(turn),
        };
        let (asked, content) = play(&debate(0), failing);
        assert_eq!(keys(&asked)[1..], [["member:1:1"], ["member:2:1"]]);
        assert_eq!(content, "said member:2:1");
    }

    #[test]
    fn it_ends_when_nobody_is_left() {
        let gone = Answer { failed: Some("no key".into()), ..Answer::default() };
        let answers = Answers([0, 1].map(|m| (member_key(0, m), gone.clone())).into());
        let Err(Failure::Run { error, .. }) = next(&debate(0), &answers, 2, 2, 0) else { panic!("it goes on") };
        assert!(error.message.contains("no key") && !error.retryable);
    }
}
