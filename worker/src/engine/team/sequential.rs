//! One after the other: each gets the message and the answers so far; the last answer is the team's.
use runmill_shared::jobs::TeamRun;

use super::{Answers, Next, Turn, member_key, statements};

pub fn next(input: &TeamRun, answers: &Answers) -> Next {
    let labels = input.team.labels();
    let mut said: Vec<(&str, &str)> = Vec::new();
    for (member, label) in labels.iter().enumerate() {
        let key = member_key(0, member);
        let Some(answer) = answers.get(&key) else {
            let prompt = match said.is_empty() {
                true => input.message.clone(),
                false => format!("{}\n\nThe answers so far:\n\n{}", input.message, statements(said.into_iter())),
            };
            return Next::Ask(vec![Turn::new(key, member, prompt)]);
        };
        said.push((label, &answer.content));
    }
    Next::Conclude(said.last().map(|(_, content)| (*content).to_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use runmill_shared::domain::team::Plan;

    use super::super::tests::{keys, play, says, team};

    #[test]
    fn each_sees_the_answers_so_far() {
        let (asked, content) = play(&team(3, Plan::Sequential), |turn| says(&format!("answer to {}", turn.key)));
        assert_eq!(keys(&asked), [["member:0:0"], ["member:0:1"], ["member:0:2"]]);
        assert_eq!(asked[0][0].1, "question");
        let told = "question\n\nThe answers so far:\n\n## a\nanswer to member:0:0\n\n## b\nanswer to member:0:1";
        assert_eq!((asked[2][0].1.as_str(), content.as_str()), (told, "answer to member:0:2"));
    }
}
