//! A model picks who answers. Its choice is journaled: whoever takes the run over asks the same one.
use runmill_shared::{
    App,
    domain::{
        chat::{ChatMessage, ModelResponse, ToolSpec},
        run::RunUsage,
    },
    jobs::TeamRun,
    services::agents,
};
use serde_json::{Value, json};

use super::{Answers, Next, Turn, member_key};
use crate::{
    engine::{Failure, agent::model_of, journal::Journal, turn},
    models::{ChatModel, ChatRequest, ToolChoice},
};

const KEY: &str = "route";
const REPAIR: &str = "route:repair";
const CHOOSE: &str = "choose_agent";

pub fn next(input: &TeamRun, answers: &Answers, chosen: usize) -> Next {
    let key = member_key(0, chosen);
    match answers.get(&key) {
        Some(answer) => Next::Conclude(answer.content.clone()),
        None => Next::Ask(vec![Turn::new(key, chosen, input.message.clone())]),
    }
}

/// Who answers: the one that the model names, asked once more when that is nobody; then the first.
pub async fn choose(app: &App, journal: &mut Journal, input: &TeamRun, usage: &mut RunUsage) -> Result<usize, Failure> {
    let labels = input.team.labels();
    if labels.len() == 1 {
        return Ok(0);
    }
    let model = model(app, input).await?;
    let mut request = request(app, input, &labels);
    let first = turn::ask(journal, &*model, &request, KEY).await?;
    usage.add(first.usage);
    if let Some(chosen) = read(&first, &labels) {
        return Ok(chosen);
    }
    let names = labels.join(", ");
    request.messages.push(ChatMessage::user(format!("That named nobody. Call {CHOOSE} with one of: {names}.")));
    let second = turn::ask(journal, &*model, &request, REPAIR).await?;
    usage.add(second.usage);
    Ok(read(&second, &labels).unwrap_or(0))
}

/// The first member's: whoever set up the team has a model for it.
async fn model(app: &App, input: &TeamRun) -> Result<std::sync::Arc<dyn ChatModel>, Failure> {
    let first = &input.team.members[0];
    let agent = agents::of_run(app, Some(&first.agent_id), first.agent_version).await?;
    model_of(app, &agent, None).await
}

fn request(app: &App, input: &TeamRun, labels: &[String]) -> ChatRequest {
    let mut system = format!("Decide which agent answers the user's message. Call {CHOOSE} with its name. The agents:\n");
    for (label, member) in labels.iter().zip(&input.team.members) {
        system.push_str(&format!("\n- {label}: {}", member.description));
    }
    let parameters = json!({
        "type": "object", "additionalProperties": false, "required": ["agent"],
        "properties": { "agent": { "type": "string", "enum": labels } },
    });
    ChatRequest {
        messages: vec![ChatMessage::system(system), ChatMessage::user(&*input.message)],
        tools: vec![ToolSpec { name: CHOOSE.to_owned(), description: "Names the agent that answers.".to_owned(), parameters }],
        tool_choice: ToolChoice::Named(CHOOSE.to_owned()),
        max_tokens: Some(app.config.models.max_tokens),
        ..ChatRequest::default()
    }
}

/// A call of the tool; or JSON, or the name alone, of a model that would not call it.
fn read(response: &ModelResponse, labels: &[String]) -> Option<usize> {
    let find = |name: &str| labels.iter().position(|label| label.eq_ignore_ascii_case(name.trim()));
    let of_call = response.tool_calls.iter().find_map(|call| call.arguments["agent"].as_str());
    let text = response.message_text.trim();
    let object = text.find('{').zip(text.rfind('}')).and_then(|(from, to)| text.get(from..=to));
    let object: Option<Value> = object.and_then(|json| serde_json::from_str(json).ok());
    let of_json = object.as_ref().and_then(|o| o["agent"].as_str());
    of_call.or(of_json).and_then(find).or_else(|| find(text))
}

#[cfg(test)]
mod tests {
    use runmill_shared::domain::chat::ToolCall;

    use super::*;

    #[test]
    fn a_choice_is_read_in_the_forms_that_models_give_it() {
        let labels = ["Poet".to_owned(), "Coder".to_owned()];
        let text = |text: &str| read(&ModelResponse { message_text: text.into(), ..ModelResponse::default() }, &labels);
        let call = |agent: &str| {
            let call = ToolCall { id: "c".into(), name: CHOOSE.into(), arguments: json!({ "agent": agent }) };
            read(&ModelResponse { tool_calls: vec![call], ..ModelResponse::default() }, &labels)
        };
        assert_eq!((call("Coder"), call("coder "), call("Nobody")), (Some(1), Some(1), None));
        assert_eq!((text("```json\n{\"agent\": \"Coder\"}\n```"), text("poet"), text("I do not know")), (Some(1), Some(0), None));
    }
}
