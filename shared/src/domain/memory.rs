//! What an agent remembers of a user, across threads.
use std::collections::HashSet;

use uuid::Uuid;

use super::search;
use crate::{
    clock::Timestamp,
    error::{Error, FieldError, Result},
};

const MAX_TEXT: usize = 2000;
const MAX_TOPICS: usize = 8;
const MAX_TOPIC: usize = 64;
/// Two texts that share so much of their words say the same.
const SAME: f64 = 0.8;

#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    pub id: Uuid,
    pub text: String,
    pub topics: Vec<String>,
    /// The run that it was learned in.
    pub run_id: Option<Uuid>,
    pub created_at: Timestamp,
    /// When it was last said.
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NewMemory {
    pub text: String,
    pub topics: Vec<String>,
}

impl NewMemory {
    /// Trims, and drops empty and repeated topics.
    ///
    /// # Errors
    /// `Invalid` for a text that is empty or longer than 2000 characters, more than 8 topics, or one of more than 64 characters.
    pub fn new(text: &str, topics: &[String]) -> Result<Self> {
        let text = text.trim().replace('\0', "");
        let mut bad = Vec::new();
        if !(1..=MAX_TEXT).contains(&text.chars().count()) {
            bad.push(FieldError { field: "text".into(), message: format!("must be 1 to {MAX_TEXT} characters") });
        }
        let mut seen = HashSet::new();
        let topics = topics.iter().map(|t| t.trim().replace('\0', "")).filter(|t| !t.is_empty());
        let topics: Vec<_> = topics.filter(|t| seen.insert(t.to_lowercase())).collect();
        if topics.len() > MAX_TOPICS || topics.iter().any(|t| t.chars().count() > MAX_TOPIC) {
            let message = format!("must be at most {MAX_TOPICS} of at most {MAX_TOPIC} characters");
            bad.push(FieldError { field: "topics".into(), message });
        }
        if bad.is_empty() { Ok(Self { text, topics }) } else { Err(Error::invalid_fields(bad)) }
    }

    /// Whether `known` says it already, in these words or nearly.
    pub fn repeats(&self, known: &str) -> bool {
        let words = |text: &str| search::tokens(text).into_iter().collect::<HashSet<_>>();
        let (new, old) = (words(&self.text), words(known));
        if new.is_empty() || old.is_empty() {
            return self.text == known.trim();
        }
        let shared = new.intersection(&old).count() as f64;
        shared / new.union(&old).count() as f64 >= SAME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(text: &str) -> NewMemory {
        NewMemory::new(text, &[]).unwrap()
    }

    #[test]
    fn what_says_the_same_is_known() {
        let new = memory("The user lives in Vienna, Austria.");
        assert!(new.repeats("the user lives in Vienna (Austria)"));
        assert!(!new.repeats("The user lives in Graz, Austria."));
        assert!(!new.repeats("The user works in Vienna."));
        assert!(memory("用户住在维也纳").repeats("用户住在维也纳。") && !memory("用户住在维也纳").repeats("用户喜欢爵士乐"));
        assert!(memory("!!!").repeats("!!!") && !memory("!!!").repeats("???"));
    }

    #[test]
    fn limits_are_named() {
        let long = "x".repeat(MAX_TEXT + 1);
        let error = NewMemory::new(&long, &["t".repeat(MAX_TOPIC + 1)]).unwrap_err();
        assert_eq!(error.fields.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(), ["text", "topics"]);
        assert!(NewMemory::new("  ", &[]).is_err());
        let kept = NewMemory::new(" a ", &["Food".into(), " food ".into(), String::new()]).unwrap();
        assert_eq!((kept.text.as_str(), kept.topics), ("a", vec!["Food".to_owned()]));
    }
}
