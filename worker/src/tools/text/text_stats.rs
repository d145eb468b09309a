//! `text_stats`: how long a text is, counted in every way.
use std::{collections::HashSet, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};
use unicode_segmentation::UnicodeSegmentation;

use super::{MAX_TEXT, sentences};
use crate::tools::{
    Tool,
    function::{Spec, function, object, text},
    maths::number,
};

/// Of a grown-up who reads silently.
const WORDS_A_MINUTE: usize = 238;

#[derive(Deserialize)]
struct Arguments {
    text: String,
}

pub fn tool() -> Arc<dyn Tool> {
    let count = json!({"type": "integer"});
    let spec = Spec {
        name: "text_stats",
        category: "text",
        description: "Counts a text: characters (as people see them), those that are no white space, bytes in UTF-8, words, different words, \
                      sentences, lines, paragraphs; the mean length of its words and how long it takes to read.",
        parameters: object(json!({"text": text(MAX_TEXT, "what to count")}), &["text"]),
        output: object(
            json!({
                "characters": count, "characters_without_spaces": count, "bytes": count, "words": count, "unique_words": count,
                "sentences": count, "lines": count, "paragraphs": count, "average_word_length": {"type": "number"},
                "reading_seconds": count,
            }),
            &["characters", "characters_without_spaces", "bytes", "words", "unique_words", "sentences", "lines", "paragraphs"],
        ),
    };
    function(spec, |arguments: Arguments| Ok(count_all(&arguments.text)))
}

fn count_all(text: &str) -> Value {
    let (mut words, mut letters, mut unique) = (0_usize, 0_usize, HashSet::new());
    for word in text.unicode_words() {
        words += 1;
        letters += word.chars().count();
        unique.insert(word.to_lowercase());
    }
    let blank = |c: &str| c.chars().all(char::is_whitespace);
    let average = if words == 0 { 0.0 } else { letters as f64 / words as f64 };
    json!({
        "characters": text.graphemes(true).count(),
        "characters_without_spaces": text.graphemes(true).filter(|c| !blank(c)).count(),
        "bytes": text.len(),
        "words": words,
        "unique_words": unique.len(),
        "sentences": sentences(text).count(),
        "lines": text.lines().count(),
        "paragraphs": paragraphs(text),
        "average_word_length": number((average * 100.0).round() / 100.0),
        "reading_seconds": (words * 60).div_ceil(WORDS_A_MINUTE),
    })
}

/// Runs of lines that have something on them.
fn paragraphs(text: &str) -> usize {
    let mut blank = true;
    let mut count = 0;
    for line in text.lines() {
        let empty = line.trim().is_empty();
        count += usize::from(blank && !empty);
        blank = empty;
    }
    count
}
