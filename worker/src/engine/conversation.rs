//! What goes to the model, and what gives way when that is too long. What changes least comes first, so that providers can cache
//! it: instructions, what is known of the user, the summary of what was said before, the messages.
use runmill_shared::domain::{
    chat::{ChatMessage, Part, Role},
    search,
};

/// What a picture, a recording or a document counts for.
const MEDIA_TOKENS: u64 = 1000;
/// What a summary is made from is cut so that it fits where the whole did not.
const LONGEST_EXCERPT: usize = 4000;
const SHORTEST_EXCERPT: usize = 100;

pub struct Conversation {
    /// The system prompt without a summary.
    head: String,
    summary: Option<String>,
    /// The first is the system prompt.
    messages: Vec<ChatMessage>,
    /// Of each message, as its thread knows it; what only the model sees has none.
    ids: Vec<Option<String>>,
}

/// A message with its id in the thread.
pub type Entry = (Option<String>, ChatMessage);

impl Conversation {
    pub fn new(head: String, summary: Option<String>, entries: Vec<Entry>) -> Self {
        let mut this = Self { head, summary, messages: vec![ChatMessage::system("")], ids: vec![None] };
        for (id, message) in entries {
            this.push(id, message);
        }
        this.write_head();
        this
    }

    fn write_head(&mut self) {
        let mut text = self.head.clone();
        if let Some(summary) = &self.summary {
            text.push_str("\n\nWhat was said before, in short:\n");
            text.push_str(summary);
        }
        self.messages[0] = ChatMessage::system(text.trim_start());
    }

    pub fn push(&mut self, id: Option<String>, message: ChatMessage) {
        self.ids.push(id);
        self.messages.push(message);
    }

    /// For a request, which gives them back with `put_back`: they may be large.
    pub fn take(&mut self) -> Vec<ChatMessage> {
        std::mem::take(&mut self.messages)
    }

    pub fn put_back(&mut self, messages: Vec<ChatMessage>) {
        self.messages = messages;
    }

    /// Tokens, roughly.
    pub fn estimate(&self) -> u64 {
        self.messages.iter().map(estimate).sum()
    }

    /// What the user said last.
    pub fn last_user(&self) -> Option<usize> {
        (0..self.messages.len()).rfind(|at| self.messages[*at].role == Role::User && self.ids[*at].is_some())
    }

    /// Up to and with which message a summary could take the place of the conversation: what is kept is about a quarter, at least
    /// the last exchange, and calls stay with their results. `None`: there is nothing that could go.
    pub fn cut(&self) -> Option<String> {
        let spare = self.estimate() / 4;
        let (mut from, mut kept) = (self.messages.len(), 0);
        for at in (1..self.messages.len()).rev().filter(|at| self.messages[*at].role != Role::Tool) {
            kept += self.messages[at..from].iter().map(estimate).sum::<u64>();
            if from < self.messages.len() && kept > spare {
                break;
            }
            from = at;
        }
        let last_user = self.last_user();
        let mut gone = (1..from).filter(|at| Some(*at) != last_user && self.ids[*at].is_some());
        // What the user said last is kept in any case: when nothing else would go, nothing would be won.
        gone.next_back().and_then(|at| self.ids[at].clone())
    }

    fn end_of(&self, upto: &str) -> Option<usize> {
        let at = self.ids.iter().position(|id| id.as_deref() == Some(upto))?;
        // What belongs to it: results that only the model sees, and what it was told of its answer.
        let belongs = |at: &usize| self.ids[*at].is_none() || self.messages[*at].role == Role::Tool;
        Some((at + 1..self.messages.len()).take_while(belongs).last().unwrap_or(at) + 1)
    }

    /// As text for a model that summarises it, with what was summarised before; at most half as long as the whole, in tokens.
    pub fn transcript(&self, upto: &str) -> String {
        let end = self.end_of(upto).unwrap_or(1);
        let most = self.estimate() / 2;
        let mut longest = LONGEST_EXCERPT;
        loop {
            let before = self.summary.iter().map(|s| format!("[summary of what was said before]\n{}", excerpt(s, longest * 2)));
            let said = self.messages[1..end].iter().map(|m| told(m, longest));
            let text = before.chain(said).collect::<Vec<_>>().join("\n\n");
            if tokens(&text) <= most || longest <= SHORTEST_EXCERPT {
                return text;
            }
            longest /= 2;
        }
    }

    /// Puts a summary in the place of what was said up to and with that message; what the user said last is kept. Answers how many
    /// messages went.
    pub fn compact(&mut self, upto: &str, summary: String) -> usize {
        let Some(end) = self.end_of(upto) else { return 0 };
        let last_user = self.last_user().filter(|at| *at < end);
        let kept = last_user.map(|at| (self.ids[at].clone(), self.messages[at].clone()));
        self.messages.drain(1..end);
        self.ids.drain(1..end);
        let gone = end - 1 - usize::from(kept.is_some());
        if let Some((id, message)) = kept {
            self.messages.insert(1, message);
            self.ids.insert(1, id);
        }
        self.summary = Some(summary);
        self.write_head();
        gone
    }
}

fn told(message: &ChatMessage, longest: usize) -> String {
    let who = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool result",
    };
    let mut text = format!("[{who}]\n{}", excerpt(&message.text(), longest));
    for call in &message.tool_calls {
        text.push_str(&format!("\n(calls {} with {})", call.name, excerpt(&call.arguments.to_string(), longest)));
    }
    let media = message.content.iter().filter(|part| !matches!(part, Part::Text { .. })).count();
    if media > 0 {
        text.push_str(&format!("\n({media} attachments)"));
    }
    text
}

/// The beginning and the end.
fn excerpt(text: &str, longest: usize) -> String {
    let count = text.chars().count();
    if count <= longest {
        return text.to_owned();
    }
    let (head, tail) = (longest * 2 / 3, longest / 3);
    let (first, last): (String, String) = (text.chars().take(head).collect(), text.chars().skip(count - tail).collect());
    format!("{first} … {last}")
}

fn estimate(message: &ChatMessage) -> u64 {
    let parts = message.content.iter().map(|part| match part {
        Part::Text { text } => tokens(text),
        Part::Unknown => 0,
        _ => MEDIA_TOKENS,
    });
    let calls = message.tool_calls.iter().map(|call| tokens(&call.name) + tokens(&call.arguments.to_string()));
    parts.chain(calls).sum::<u64>() + message.reasoning.as_deref().map_or(0, tokens)
}

/// Four characters a token, one and a half in Chinese, Japanese and Korean.
fn tokens(text: &str) -> u64 {
    let (mut cjk, mut other) = (0_u64, 0_u64);
    for c in text.chars() {
        *(if search::is_cjk(c) { &mut cjk } else { &mut other }) += 1;
    }
    cjk * 2 / 3 + other.div_ceil(4)
}

#[cfg(test)]
mod tests {
    use runmill_shared::domain::chat::ToolCall;
    use serde_json::json;

    use super::*;

    fn calling(id: &str, call: &str) -> Entry {
        let mut message = ChatMessage::assistant("");
        message.tool_calls = vec![ToolCall { id: call.into(), name: "look".into(), arguments: json!({}) }];
        (Some(id.into()), message)
    }

    fn result(call: &str, text: &str) -> Entry {
        (Some(format!("{call}-result")), ChatMessage::tool(call, text))
    }

    fn said(id: &str, message: ChatMessage) -> Entry {
        (Some(id.into()), message)
    }

    fn roles(talk: &Conversation) -> Vec<String> {
        talk.messages[1..].iter().map(|m| format!("{:?} {}", m.role, m.text())).collect()
    }

    #[test]
    fn tokens_are_estimated_by_script() {
        assert_eq!((tokens("four"), tokens("four more"), tokens("三个字"), tokens("")), (1, 3, 2, 0));
    }

    #[test]
    fn older_turns_go_and_the_last_exchange_stays() {
        let long = "word ".repeat(200);
        let mut talk = Conversation::new(
            "be kind".into(),
            Some("they met".into()),
            vec![
                said("1", ChatMessage::user(&long)),
                said("2", ChatMessage::assistant(&long)),
                said("3", ChatMessage::user(&long)),
                said("4", ChatMessage::assistant("short")),
                said("5", ChatMessage::user("and now?")),
            ],
        );
        assert!(talk.messages[0].text().ends_with("they met"));
        let upto = talk.cut().unwrap();
        assert_eq!(upto, "3");
        let transcript = talk.transcript(&upto);
        assert!(transcript.contains("they met") && transcript.contains("[assistant]") && !transcript.contains("and now?"));
        assert!(tokens(&transcript) <= talk.estimate() / 2);
        assert_eq!(talk.compact(&upto, "they talked".into()), 3);
        assert_eq!(roles(&talk), ["Assistant short", "User and now?"]);
        assert_eq!(talk.messages[0].text(), "be kind\n\nWhat was said before, in short:\nthey talked");
    }

    #[test]
    fn a_call_is_not_parted_from_its_results_and_the_question_is_kept() {
        let long = "word ".repeat(200);
        let entries = vec![
            said("1", ChatMessage::user("find it")),
            calling("2", "a"),
            result("a", &long),
            (None, ChatMessage::tool("b", "this call was not executed")),
            calling("3", "c"),
            result("c", &long),
            result("d", &long),
        ];
        let mut talk = Conversation::new(String::new(), None, entries);
        assert_eq!(talk.cut().as_deref(), Some("a-result"));
        assert_eq!(talk.compact("a-result", "looked".into()), 3);
        let kept = roles(&talk);
        assert!(kept.len() == 4 && kept[0] == "User find it" && kept[1] == "Assistant ", "{kept:?}");
        assert_eq!(talk.cut(), None, "only the question and what is open");
    }

    #[test]
    fn where_nothing_can_go_nothing_is_cut() {
        let talk = Conversation::new("x".into(), None, vec![said("1", ChatMessage::user("y ".repeat(9000)))]);
        assert_eq!(talk.cut(), None);
        let repaired =
            vec![said("1", ChatMessage::user("y")), said("2", ChatMessage::assistant("{")), (None, ChatMessage::user("no"))];
        let mut talk = Conversation::new("x".into(), None, repaired);
        assert_eq!(talk.last_user(), Some(1), "what only the model was told is not the user's");
        assert_eq!(talk.compact("2", "s".into()), 2);
        assert_eq!(roles(&talk), ["User y"]);
    }
}
