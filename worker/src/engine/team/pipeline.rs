//! A line of agents: the first gets the message, each other what the one before made, and nothing else.
use runmill_shared::jobs::TeamRun;

use super::{Answers, Next, Turn, member_key};

pub fn next(input: &TeamRun, answers: &Answers) -> Next {
    let mut made = &input.message;
    for member in 0..input.team.members.len() {
        let key = member_key(0, member);
        match answers.get(&key) {
            Some(answer) => made = &answer.content,
            None => return Next::Ask(vec![Turn { with_history: member == 0, ..Turn::new(key, member, made.clone()) }]),
        }
    }
    Next::Conclude(made.clone())
}

#[cfg(test)]
mod tests {
    use runmill_shared::domain::team::Plan;

    use super::super::tests::{play, says, team};

    #[test]
    fn each_sees_only_what_the_one_before_made() {
        let (asked, content) = play(&team(3, Plan::Pipeline), |turn| says(&format!("{}+{}", turn.prompt, turn.member)));
        let prompts: Vec<_> = asked.iter().map(|round| round[0].1.as_str()).collect();
        assert_eq!((prompts, content.as_str()), (vec!["question", "question+0", "question+0+1"], "question+0+1+2"));
    }
}
