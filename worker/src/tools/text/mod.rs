//! Texts in natural language and in markup.
mod deadline;
mod html_to_text;
mod markdown_to_html;
mod regex;
mod slugify;
mod template;
mod template_render;
mod text_diff;
mod text_split;
mod text_stats;

use std::sync::Arc;

use unicode_segmentation::UnicodeSegmentation;

use super::{Tool, ToolError};

/// Of one text, in characters.
const MAX_TEXT: usize = 500_000;
/// Of a result, in bytes. A run's own limit is smaller.
const MAX_RESULT: usize = 1 << 20;

pub fn all() -> Vec<Arc<dyn Tool>> {
    vec![
        html_to_text::tool(),
        markdown_to_html::tool(),
        regex::match_tool(),
        regex::replace_tool(),
        slugify::tool(),
        template_render::tool(),
        text_diff::tool(),
        text_split::tool(),
        text_stats::tool(),
    ]
}

/// With their place. (The library cannot do with an empty text.)
fn sentences(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = Some(text).filter(|text| !text.is_empty());
    let bounds = text.into_iter().flat_map(UnicodeSegmentation::split_sentence_bound_indices);
    bounds.filter(|(_, sentence)| !sentence.trim().is_empty())
}

fn result_too_large() -> ToolError {
    ToolError::new("RESULT_TOO_LARGE", format!("the result has more than {MAX_RESULT} bytes"))
}
