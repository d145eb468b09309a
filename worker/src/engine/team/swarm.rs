//! Agents that hand over to each other until one answers. In the last round nobody can hand over any more, unless an aggregator is
//! there to answer then.
use runmill_shared::jobs::TeamRun;

use super::{Answers, HandOver, Next, Turn, member_key, statements};

pub fn next(input: &TeamRun, answers: &Answers, max_rounds: u32, size: usize, aggregator: Option<usize>) -> Next {
    let labels = input.team.labels();
    let mut active = 0;
    // What was handed over so far, and by whom.
    let mut handed: Vec<(String, String)> = Vec::new();
    for round in 0..max_rounds {
        let key = member_key(round, active);
        let Some(answer) = answers.get(&key) else {
            let is_last = round + 1 == max_rounds && aggregator.is_none();
            let others = labels[..size].iter().enumerate().filter(|(member, _)| *member != active && !is_last);
            let hand_over = others.map(|(_, label)| label.clone()).collect();
            return Next::Ask(vec![Turn { hand_over, ..Turn::new(key, active, prompt(input, &handed)) }]);
        };
        let Some(hand_over) = &answer.hand_over else { return Next::Conclude(answer.content.clone()) };
        let from = &labels[active];
        match find(&labels[..size], hand_over) {
            Some(to) => {
                handed.push((format!("{from}, handing over to {}", labels[to]), said(&answer.content, hand_over)));
                active = to;
            }
            None => {
                let why = format!("There is no agent named {:?}: the work came back.", hand_over.agent);
                handed.push((format!("{from}, handing over to nobody"), format!("{}\n{why}", hand_over.message)));
            }
        }
    }
    // The last round could hand over only because there is an aggregator.
    let concludes = aggregator.unwrap_or(active);
    let key = member_key(max_rounds, concludes);
    match answers.get(&key) {
        Some(answer) => Next::Conclude(answer.content.clone()),
        None => {
            let prompt = format!("{}\n\nAnswer now, with what is known.", prompt(input, &handed));
            Next::Ask(vec![Turn::new(key, concludes, prompt)])
        }
    }
}

fn find(labels: &[String], hand_over: &HandOver) -> Option<usize> {
    labels.iter().position(|label| *label == hand_over.agent)
}

/// What was said beside the call belongs to it.
fn said(content: &str, hand_over: &HandOver) -> String {
    let parts = [content, &hand_over.message].map(str::trim);
    parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("\n")
}

fn prompt(input: &TeamRun, handed: &[(String, String)]) -> String {
    if handed.is_empty() {
        return input.message.clone();
    }
    let said = statements(handed.iter().map(|(from, said)| (from.as_str(), said.as_str())));
    format!("{}\n\nWhat was handed over so far:\n\n{said}", input.message)
}

#[cfg(test)]
mod tests {
    use runmill_shared::domain::team::Plan;

    use super::super::{
        Answer, Turn,
        tests::{keys, play, says, team},
    };
    use super::*;

    fn to(agent: &str) -> Answer {
        Answer { hand_over: Some(HandOver { agent: agent.into(), message: format!("do it, {agent}") }), ..says("hm") }
    }

    fn swarm(max_rounds: u32, aggregator: Option<usize>) -> TeamRun {
        team(3, Plan::Swarm { max_rounds, size: 2, aggregator })
    }

    #[test]
    fn they_hand_over_until_one_answers() {
        let (asked, content) = play(&swarm(5, None), |turn: &Turn| match turn.key.as_str() {
            "member:0:0" => to("b"),
            _ => says("done"),
        });
        assert_eq!((keys(&asked), content.as_str()), (vec![vec!["member:0:0"], vec!["member:1:1"]], "done"));
        let told = "question\n\nWhat was handed over so far:\n\n## a, handing over to b\nhm\ndo it, b";
        assert_eq!(asked[1][0].1, told);
    }

    #[test]
    fn the_last_round_must_answer_or_the_aggregator_does() {
        let offered = |max_rounds, aggregator| {
            let mut offered = Vec::new();
            let input = swarm(max_rounds, aggregator);
            let answer = |turn: &Turn| if turn.hand_over.is_empty() { says("end") } else { to(&turn.hand_over[0]) };
            let mut answers = Answers::default();
            loop {
                match super::super::next(&input, &answers, None).unwrap() {
                    Next::Ask(turns) => {
                        offered.push((turns[0].key.clone(), turns[0].hand_over.len()));
                        answers.0.insert(turns[0].key.clone(), answer(&turns[0]));
                    }
                    Next::Conclude(content) => return (offered, content),
                }
            }
        };
        let turn = |key: &str, others| (key.to_owned(), others);
        assert_eq!(offered(2, None), (vec![turn("member:0:0", 1), turn("member:1:1", 0)], "end".to_owned()));
        let with = vec![turn("member:0:0", 1), turn("member:1:1", 1), turn("member:2:2", 0)];
        assert_eq!(offered(2, Some(2)), (with, "end".to_owned()));
    }

    #[test]
    fn who_hands_over_to_nobody_is_told_so() {
        let (asked, content) = play(&swarm(3, None), |turn| if turn.key == "member:0:0" { to("z") } else { says("done") });
        assert_eq!((keys(&asked)[1].as_slice(), content.as_str()), (["member:1:0"].as_slice(), "done"));
        assert!(asked[1][0].1.contains("no agent named \"z\""), "{asked:?}");
    }
}
