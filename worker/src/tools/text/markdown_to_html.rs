//! `markdown_to_html`: CommonMark with the tables, footnotes, strike-through and task lists of GitHub. What it writes is safe to show: HTML in
//! the text is shown as text, and a link that a browser would execute goes nowhere.
use std::{fmt, sync::Arc};

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{MAX_RESULT, MAX_TEXT, result_too_large};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

const SCHEMES: [&str; 5] = ["http", "https", "mailto", "tel", "ftp"];

#[derive(Deserialize)]
struct Arguments {
    markdown: String,
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "markdown_to_html",
        category: "text",
        description: "Turns Markdown (CommonMark with tables, footnotes, strike-through and task lists) into HTML. HTML inside it is escaped; links \
                      that run code are dropped.",
        parameters: object(json!({"markdown": text(MAX_TEXT, "Markdown")}), &["markdown"]),
        output: object(json!({"html": {"type": "string"}}), &["html"]),
    };
    function(spec, |arguments: Arguments| render(&arguments.markdown))
}

fn render(markdown: &str) -> Result<Value, ToolError> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut page = Bounded(String::new());
    html::write_html_fmt(&mut page, Parser::new_ext(markdown, options).map(harmless)).map_err(|_| result_too_large())?;
    Ok(json!({"html": page.0}))
}

/// A text that refuses to grow past what a result may have.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_RESULT {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

fn harmless(event: Event<'_>) -> Event<'_> {
    match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        Event::Start(Tag::HtmlBlock) => Event::Start(Tag::Paragraph),
        Event::End(TagEnd::HtmlBlock) => Event::End(TagEnd::Paragraph),
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            Event::Start(Tag::Link { link_type, dest_url: followable(dest_url), title, id })
        }
        Event::Start(Tag::Image { link_type, dest_url, title, id }) => {
            Event::Start(Tag::Image { link_type, dest_url: followable(dest_url), title, id })
        }
        event => event,
    }
}

/// Browsers take white space and control characters out of a scheme; so what has a colon before any slash must be one that is known.
fn followable(url: CowStr<'_>) -> CowStr<'_> {
    let before_path = url.split(['/', '?', '#']).next().unwrap_or_default();
    match before_path.split_once(':') {
        Some((scheme, _)) if !SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) => CowStr::Borrowed("#"),
        _ => url,
    }
}
