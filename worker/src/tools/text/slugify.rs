//! `slugify`: a text as a part of a URL.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use crate::tools::{
    Tool,
    function::{Spec, function, object, text},
};

#[derive(Deserialize)]
struct Arguments {
    text: String,
    #[serde(default = "hyphen")]
    separator: String,
    #[serde(default = "eighty")]
    max_length: usize,
}

fn hyphen() -> String {
    "-".to_owned()
}

fn eighty() -> usize {
    80
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "slugify",
        category: "text",
        description: "Makes a slug for a URL or a file name: lower-case ASCII letters and digits with a separator between words; other scripts \
                      are written in Latin letters. It ends at a whole word where it can.",
        parameters: object(
            json!({
                "text": text(10_000, "for example a title"),
                "separator": {"type": "string", "enum": ["-", "_", "."], "description": "- when left out"},
                "max_length": {"type": "integer", "minimum": 1, "maximum": 500, "description": "80 when left out"},
            }),
            &["text"],
        ),
        output: object(json!({"slug": {"type": "string"}}), &["slug"]),
    };
    function(spec, |arguments: Arguments| {
        let slug = slug(&arguments.text, &arguments.separator, arguments.max_length);
        Ok(json!({"slug": slug}))
    })
}

fn slug(text: &str, separator: &str, max: usize) -> String {
    // An apostrophe joins: don't is one word.
    let ascii = deunicode::deunicode(text).to_lowercase().replace('\'', "");
    let mut slug = String::new();
    for word in ascii.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        if slug.is_empty() {
            slug.push_str(&word[..word.len().min(max)]);
        } else if slug.len() + separator.len() + word.len() <= max {
            slug.push_str(separator);
            slug.push_str(word);
        } else {
            break;
        }
    }
    slug
}
