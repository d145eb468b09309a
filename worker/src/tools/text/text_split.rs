//! `text_split`: a text in pieces, each of so many units. The pieces are cut out of the text: nothing between the units of one is lost.
use std::{ops::Range, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};
use unicode_segmentation::UnicodeSegmentation;

use super::{MAX_RESULT, MAX_TEXT, result_too_large, sentences};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

const MAX_CHUNKS: usize = 10_000;
const CHARACTERS: usize = 1000;

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Lines,
    Sentences,
    Words,
    Chars,
    Paragraphs,
    Separator,
}

#[derive(Deserialize)]
struct Arguments {
    text: String,
    by: By,
    separator: Option<String>,
    size: Option<usize>,
    #[serde(default)]
    overlap: usize,
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "text_split",
        category: "text",
        description: "Splits a text into lines, sentences, words, characters, paragraphs or at a separator; or (size) into chunks of so many of \
                      them, of which neighbours can share some (overlap).",
        parameters: object(
            json!({
                "text": text(MAX_TEXT, "what to split"),
                "by": {
                    "type": "string", "enum": ["lines", "sentences", "words", "chars", "paragraphs", "separator"],
                    "description": "what is counted",
                },
                "separator": {"type": "string", "minLength": 1, "maxLength": 100, "description": "what stands between the units, when by is separator"},
                "size": {
                    "type": "integer", "minimum": 1, "maximum": MAX_TEXT,
                    "description": "units a chunk; 1 when left out, 1000 for chars",
                },
                "overlap": {"type": "integer", "minimum": 0, "maximum": MAX_TEXT, "description": "units that a chunk has from the one before; less than size"},
            }),
            &["text", "by"],
        ),
        output: object(
            json!({"chunks": {"type": "array", "items": {"type": "string"}}, "count": {"type": "integer"}, "units": {"type": "integer"}}),
            &["chunks", "count", "units"],
        ),
    };
    function(spec, |arguments: Arguments| split(&arguments))
}

fn split(arguments: &Arguments) -> Result<Value, ToolError> {
    let size = arguments.size.unwrap_or(if matches!(arguments.by, By::Chars) { CHARACTERS } else { 1 });
    if arguments.overlap >= size {
        return Err(ToolError::invalid(format!("overlap: it must be less than size, which is {size}")));
    }
    let units = units(arguments)?;
    let (mut chunks, mut bytes, mut from) = (Vec::new(), 0, 0);
    while from < units.len() {
        let to = (from + size).min(units.len());
        let chunk = &arguments.text[units[from].start..units[to - 1].end];
        bytes += chunk.len();
        if chunks.len() == MAX_CHUNKS || bytes > MAX_RESULT {
            return Err(result_too_large());
        }
        chunks.push(chunk);
        if to == units.len() {
            break;
        }
        from += size - arguments.overlap;
    }
    Ok(json!({"count": chunks.len(), "chunks": chunks, "units": units.len()}))
}

fn units(arguments: &Arguments) -> Result<Vec<Range<usize>>, ToolError> {
    let text = arguments.text.as_str();
    let range = |(start, unit): (usize, &str)| start..start + unit.len();
    let trimmed = |(start, unit): (usize, &str)| {
        let start = start + unit.len() - unit.trim_start().len();
        start..start + unit.trim().len()
    };
    Ok(match arguments.by {
        By::Lines => text.split_inclusive('\n').map(|line| place(text, line.trim_end_matches(['\n', '\r']))).collect(),
        By::Sentences => sentences(text).map(trimmed).collect(),
        By::Words => text.unicode_word_indices().map(range).collect(),
        By::Chars => text.grapheme_indices(true).map(range).collect(),
        By::Paragraphs => paragraphs(text),
        By::Separator => {
            let missing = || ToolError::invalid("separator: it is needed when by is separator");
            let separator = arguments.separator.as_deref().ok_or_else(missing)?;
            text.split(separator).map(|unit| place(text, unit)).collect()
        }
    })
}

/// Where `part`, a slice of `text`, is in it.
fn place(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

fn paragraphs(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let line = place(text, line.trim_end());
        match found.last_mut() {
            _ if text[line.clone()].trim().is_empty() => open = false,
            Some(last) if open => last.end = line.end,
            _ => {
                found.push(line);
                open = true;
            }
        }
    }
    found
}
