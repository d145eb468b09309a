//! `regex_match` and `regex_replace`: expressions without backtracking. The work is the product of the compiled expression and the text, so
//! a large text takes a small expression only.
use std::{sync::Arc, time::Duration};

use ::regex::{Captures, Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{MAX_RESULT, deadline::Deadline, result_too_large};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

const MAX_TEXT: usize = 200_000;
const MAX_PATTERN: usize = 2000;
const MAX_MATCHES: usize = 1000;
/// Bytes of the compiled expression times bytes of the text: some seconds at the very worst.
const MAX_WORK: usize = 4_000_000_000;
const SMALLEST: usize = 128 << 10;
const LARGEST: usize = 2 << 20;
const NEST_LIMIT: u32 = 50;
/// Between matches: finding all of them can take the square of the text.
const TIME: Duration = Duration::from_secs(2);

const FLAGS: &str =
    "any of i (case does not matter), m (^ and $ at each line), s (. matches line ends), x (white space ignored), U (lazy)";
const SYNTAX: &str = "as in Rust and RE2: no look-around, no backreferences";

#[derive(Deserialize)]
struct Match {
    text: String,
    pattern: String,
    #[serde(default)]
    flags: String,
    #[serde(default = "hundred")]
    max_matches: usize,
}

fn hundred() -> usize {
    100
}

#[derive(Deserialize)]
struct Replace {
    text: String,
    pattern: String,
    replacement: String,
    #[serde(default)]
    flags: String,
    #[serde(default)]
    limit: usize,
}

fn flags() -> Value {
    json!({"type": "string", "pattern": "^[imsxU]*$", "maxLength": 5, "description": FLAGS})
}

pub fn match_tool() -> Arc<dyn Tool> {
    let group = json!({"type": ["string", "null"]});
    let found = object(
        json!({
            "match": {"type": "string"}, "start": {"type": "integer"}, "end": {"type": "integer"},
            "groups": {"type": "array", "items": group}, "named": {"type": "object", "additionalProperties": group},
        }),
        &["match", "start", "end", "groups", "named"],
    );
    let spec = Spec {
        name: "regex_match",
        category: "text",
        description: "Finds what a regular expression matches in a text, from left to right: each match with its place in characters (from 0) \
                      and its groups (null: a group that took no part).",
        parameters: object(
            json!({
                "text": text(MAX_TEXT, "where to look"),
                "pattern": text(MAX_PATTERN, SYNTAX),
                "flags": flags(),
                "max_matches": {"type": "integer", "minimum": 1, "maximum": MAX_MATCHES, "description": "100 when left out"},
            }),
            &["text", "pattern"],
        ),
        output: object(
            json!({
                "matched": {"type": "boolean"}, "matches": {"type": "array", "items": found},
                "more": {"type": "boolean", "description": "there are more than max_matches"},
            }),
            &["matched", "matches", "more"],
        ),
    };
    function(spec, |arguments: Match| find(&arguments))
}

pub fn replace_tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "regex_replace",
        category: "text",
        description: "Replaces what a regular expression matches. $1 and ${name} in the replacement are groups, $$ is a dollar sign.",
        parameters: object(
            json!({
                "text": text(MAX_TEXT, "where to replace"),
                "pattern": text(MAX_PATTERN, SYNTAX),
                "replacement": text(10_000, "what comes instead"),
                "flags": flags(),
                "limit": {"type": "integer", "minimum": 0, "description": "how many matches from the left; all when left out or 0"},
            }),
            &["text", "pattern", "replacement"],
        ),
        output: object(json!({"text": {"type": "string"}, "replacements": {"type": "integer"}}), &["text", "replacements"]),
    };
    function(spec, |arguments: Replace| replace(&arguments))
}

fn compile(pattern: &str, flags: &str, text: &str) -> Result<Regex, ToolError> {
    let has = |flag| flags.contains(flag);
    let limit = (MAX_WORK / text.len().max(1)).clamp(SMALLEST, LARGEST);
    RegexBuilder::new(pattern)
        .case_insensitive(has('i'))
        .multi_line(has('m'))
        .dot_matches_new_line(has('s'))
        .ignore_whitespace(has('x'))
        .swap_greed(has('U'))
        .size_limit(limit)
        .dfa_size_limit(LARGEST)
        .nest_limit(NEST_LIMIT)
        .build()
        .map_err(|e| match e {
            ::regex::Error::CompiledTooBig(_) => ToolError::new(
                "TOO_COMPLEX",
                "the expression is too large for a text of this length; repeat less or match less at once",
            ),
            e => {
                let all = e.to_string();
                // It begins with the pattern; the reason is at its end.
                let why = if pattern.len() > 200 { all.lines().last().unwrap_or_default() } else { &all };
                ToolError::new("INVALID_PATTERN", why)
            }
        })
}

fn find(arguments: &Match) -> Result<Value, ToolError> {
    let regex = compile(&arguments.pattern, &arguments.flags, &arguments.text)?;
    let deadline = Deadline::after(TIME);
    let (mut matches, mut more, mut size) = (Vec::new(), false, 0);
    // Where the characters before a byte were counted up to.
    let (mut byte, mut character) = (0, 0);
    for captures in regex.captures_iter(&arguments.text) {
        deadline.check()?;
        if matches.len() == arguments.max_matches {
            more = true;
            break;
        }
        let whole = captures.get_match();
        character += arguments.text[byte..whole.start()].chars().count();
        byte = whole.start();
        size += captures.iter().flatten().map(|group| group.len()).sum::<usize>();
        if size > MAX_RESULT {
            return Err(result_too_large());
        }
        matches.push(told(&regex, &captures, character));
    }
    Ok(json!({"matched": !matches.is_empty(), "matches": matches, "more": more}))
}

fn told(regex: &Regex, captures: &Captures<'_>, start: usize) -> Value {
    let whole = captures.get_match().as_str();
    let groups: Vec<_> = captures.iter().skip(1).map(|group| group.map(|g| g.as_str())).collect();
    let named: Map<_, _> =
        regex.capture_names().flatten().map(|name| (name.to_owned(), json!(captures.name(name).map(|g| g.as_str())))).collect();
    json!({"match": whole, "start": start, "end": start + whole.chars().count(), "groups": groups, "named": named})
}

fn replace(arguments: &Replace) -> Result<Value, ToolError> {
    let regex = compile(&arguments.pattern, &arguments.flags, &arguments.text)?;
    let deadline = Deadline::after(TIME);
    let limit = if arguments.limit == 0 { usize::MAX } else { arguments.limit };
    let (mut result, mut from, mut count) = (String::new(), 0, 0);
    for captures in regex.captures_iter(&arguments.text).take(limit) {
        deadline.check()?;
        let whole = captures.get_match();
        result.push_str(&arguments.text[from..whole.start()]);
        captures.expand(&arguments.replacement, &mut result);
        if result.len() > MAX_RESULT {
            return Err(result_too_large());
        }
        from = whole.end();
        count += 1;
    }
    result.push_str(&arguments.text[from..]);
    Ok(json!({"text": result, "replacements": count}))
}
