//! `html_to_text`: what a page says. It goes through the tokens of a browser's parser from left to right and builds no tree, so nesting
//! costs nothing.
use std::{cell::RefCell, sync::Arc, time::Duration};

use html5ever::{
    tendril::StrTendril,
    tokenizer::{
        BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
        states::RawKind::{Rawtext, Rcdata, ScriptData},
    },
};
use serde::Deserialize;
use serde_json::json;

use super::{MAX_TEXT, deadline::Deadline};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

const MAX_LIST_DEPTH: usize = 10;
/// What is read between two looks at the clock, in bytes.
const PIECE: usize = 4096;
const TIME: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Arguments {
    html: String,
    #[serde(default)]
    links: bool,
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "html_to_text",
        category: "text",
        description: "Reads the text out of HTML: paragraphs, headings (with #), lists and table rows keep their lines; scripts, styles and comments \
                      are left out; links: true writes addresses after their text.",
        parameters: object(
            json!({
                "html": text(MAX_TEXT, "a page or a part of one"),
                "links": {"type": "boolean", "description": "write addresses; false when left out"},
            }),
            &["html"],
        ),
        output: object(json!({"text": {"type": "string"}, "title": {"type": ["string", "null"]}}), &["text", "title"]),
    };
    function(spec, |arguments: Arguments| {
        let page = read(&arguments.html, arguments.links)?;
        Ok(json!({"text": page.text, "title": page.title}))
    })
}

pub struct Page {
    pub text: String,
    pub title: Option<String>,
}

/// What `html` says, and its title. The text is no longer than the page by more than its lists' indents.
///
/// # Errors
/// `TOO_COMPLEX` after `TIME`: the tokenizer compares all attributes of an element with each other.
pub fn read(html: &str, links: bool) -> Result<Page, ToolError> {
    let deadline = Deadline::after(TIME);
    let tokenizer = Tokenizer::new(Reader(RefCell::new(Writer { links, ..Writer::default() })), TokenizerOpts::default());
    let input = BufferQueue::default();
    let mut rest = html;
    while !rest.is_empty() {
        deadline.check()?;
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE.min(rest.len())));
        input.push_back(StrTendril::from(piece));
        // It would stop for scripts to run and for encodings; this reader asks for neither.
        let _ = tokenizer.feed(&input);
        rest = after;
    }
    tokenizer.end();
    let writer = tokenizer.sink.0.take();
    let title = writer.title.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(Page { text: writer.out.trim().to_owned(), title: (!title.is_empty()).then_some(title) })
}

struct Reader(RefCell<Writer>);

impl TokenSink for Reader {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut writer = self.0.borrow_mut();
        match token {
            Token::CharacterTokens(text) => writer.text(&text),
            Token::TagToken(tag) => return writer.tag(&tag),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

#[derive(Default)]
struct Writer {
    out: String,
    title: String,
    links: bool,
    /// The element whose text is not shown.
    hidden: Option<String>,
    in_title: bool,
    preformatted: usize,
    /// Of each open list, the number of its next item; none for bullets.
    lists: Vec<Option<usize>>,
    href: Option<String>,
    /// White space that is written when text follows on the line.
    space: bool,
}

impl Writer {
    fn text(&mut self, text: &str) {
        if self.in_title {
            self.title.push_str(text);
        } else if self.hidden.is_some() {
        } else if self.preformatted > 0 {
            self.out.push_str(text);
        } else {
            for (i, word) in text.split(|c: char| c.is_ascii_whitespace()).enumerate() {
                self.space |= i > 0;
                if !word.is_empty() {
                    self.word(word);
                }
            }
        }
    }

    fn word(&mut self, word: &str) {
        if self.space && !self.out.is_empty() && !self.out.ends_with([' ', '\n']) {
            self.out.push(' ');
        }
        self.space = false;
        self.out.push_str(word);
    }

    /// Ends the line, and leaves `blank` lines free before the next.
    fn lines(&mut self, blank: usize) {
        self.space = false;
        let kept = self.out.trim_end_matches([' ', '\t']).len();
        self.out.truncate(kept);
        if self.out.is_empty() {
            return;
        }
        let there = self.out.len() - self.out.trim_end_matches('\n').len();
        for _ in there..=blank {
            self.out.push('\n');
        }
    }

    fn tag(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let (name, opens) = (&*tag.name, tag.kind == TagKind::StartTag);
        if let Some(hidden) = &self.hidden {
            if !opens && hidden == name {
                self.hidden = None;
            }
            return TokenSinkResult::Continue;
        }
        match name {
            "title" => {
                self.in_title = opens && self.title.is_empty();
                if opens && !self.in_title {
                    self.hidden = Some(name.to_owned());
                }
                if opens {
                    return TokenSinkResult::RawData(Rcdata);
                }
            }
            "script" | "style" | "noscript" | "iframe" | "noembed" | "noframes" | "xmp" | "textarea" if opens => {
                self.hidden = Some(name.to_owned());
                return TokenSinkResult::RawData(match name {
                    "script" => ScriptData,
                    "textarea" => Rcdata,
                    _ => Rawtext,
                });
            }
            "template" | "svg" | "math" | "select" | "object" if opens && !tag.self_closing => {
                self.hidden = Some(name.to_owned())
            }
            _ => self.shown(tag, name, opens),
        }
        TokenSinkResult::Continue
    }

    fn shown(&mut self, tag: &Tag, name: &str, opens: bool) {
        match name {
            "br" if self.out.ends_with("\n\n\n") => {}
            "br" => self.out.push('\n'),
            "hr" => {
                self.lines(1);
                self.out.push_str("---");
                self.lines(1);
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                self.lines(1);
                if opens {
                    self.out.push_str(&"######"[..usize::from(name.as_bytes()[1] - b'0')]);
                    self.space = true;
                }
            }
            "pre" => {
                self.lines(1);
                self.preformatted = if opens { self.preformatted + 1 } else { self.preformatted.saturating_sub(1) };
            }
            "ul" | "ol" => self.list(name, opens),
            "li" if opens => self.item(),
            "a" => self.link(tag, opens),
            "img" => {
                if let Some(alt) = attribute(tag, "alt").filter(|alt| !alt.trim().is_empty()) {
                    self.text(&alt);
                }
            }
            "td" | "th" if opens && !self.out.is_empty() && !self.out.ends_with('\n') => {
                self.out.push_str(" | ");
                self.space = false;
            }
            "p" | "blockquote" | "table" | "section" | "article" | "figure" | "dl" | "form" | "fieldset" => self.lines(1),
            "div" | "tr" | "li" | "dt" | "dd" | "header" | "footer" | "main" | "nav" | "aside" | "caption" | "figcaption"
            | "address" | "details" | "summary" | "option" | "body" | "head" | "html" | "center" => self.lines(0),
            _ => {}
        }
    }

    fn list(&mut self, name: &str, opens: bool) {
        self.lines(usize::from(self.lists.len() < 2 && self.lists.is_empty() == opens));
        if opens {
            self.lists.push((name == "ol").then_some(1));
        } else {
            self.lists.pop();
        }
    }

    fn item(&mut self) {
        self.lines(0);
        let depth = self.lists.len().saturating_sub(1).min(MAX_LIST_DEPTH);
        self.out.push_str(&"  ".repeat(depth));
        match self.lists.last_mut() {
            Some(Some(number)) => {
                self.out.push_str(&format!("{number}. "));
                *number += 1;
            }
            _ => self.out.push_str("- "),
        }
    }

    fn link(&mut self, tag: &Tag, opens: bool) {
        if opens {
            self.href =
                attribute(tag, "href").filter(|href| self.links && !href.starts_with(['#']) && !href.starts_with("javascript:"));
        } else if let Some(href) = self.href.take() {
            self.space = true;
            self.word(&format!("({href})"));
        }
    }
}

fn attribute(tag: &Tag, name: &str) -> Option<String> {
    tag.attrs.iter().find(|a| &*a.name.local == name).map(|a| a.value.to_string())
}
