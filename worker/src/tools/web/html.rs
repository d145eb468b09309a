//! The readable text of a page. It works on tokens and builds no tree: time and memory grow with the page and with nothing else, however
//! hostile its nesting is.
use html5gum::{DefaultEmitter, HtmlString, StartTag, Token, Tokenizer};
use reqwest::Url;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    #[default]
    Text,
    Markdown,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readable {
    pub title: Option<String>,
    pub text: String,
}

/// Whose contents nobody reads.
const SKIPPED: [&[u8]; 12] = [
    b"script",
    b"style",
    b"noscript",
    b"template",
    b"svg",
    b"iframe",
    b"object",
    b"select",
    b"button",
    b"nav",
    b"footer",
    b"canvas",
];
/// What stands in lines of its own.
const BLOCKS: [&[u8]; 24] = [
    b"address",
    b"article",
    b"aside",
    b"blockquote",
    b"dd",
    b"div",
    b"dl",
    b"dt",
    b"fieldset",
    b"figcaption",
    b"figure",
    b"form",
    b"header",
    b"hr",
    b"main",
    b"ol",
    b"p",
    b"section",
    b"table",
    b"tbody",
    b"thead",
    b"ul",
    b"body",
    b"html",
];

/// Stops after `max` bytes of text; relative links are resolved against `base`.
pub fn readable(html: &str, base: Option<&Url>, style: Style, max: usize) -> Readable {
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let mut page = Page { style, base, ..Page::default() };
    for token in Tokenizer::new_with_emitter(html, emitter) {
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) => page.start(&tag),
            Token::EndTag(tag) => page.end(&tag.name),
            Token::String(text) => page.text(&text.value),
            Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
        if page.out.len() > max {
            break;
        }
    }
    page.finish(max)
}

#[derive(Default)]
struct Page<'a> {
    style: Style,
    base: Option<&'a Url>,
    out: String,
    title: Option<String>,
    in_title: bool,
    /// The element whose contents are left out, and how many of its name are open.
    skipping: Option<(Vec<u8>, usize)>,
    /// Inside `pre`: white space is kept.
    verbatim: usize,
    lists: Vec<Option<u64>>,
    links: Vec<Option<String>>,
    /// Line ends that are due before the next text.
    breaks: usize,
    /// A space is due before the next text.
    space: bool,
}

impl Page<'_> {
    fn is_markdown(&self) -> bool {
        self.style == Style::Markdown
    }

    fn start(&mut self, tag: &StartTag<()>) {
        let name: &[u8] = &tag.name;
        if let Some((skipped, depth)) = &mut self.skipping {
            *depth += usize::from(skipped == name && !tag.self_closing);
            return;
        }
        if SKIPPED.contains(&name) {
            if !tag.self_closing {
                self.skipping = Some((name.to_vec(), 1));
            }
            return;
        }
        match name {
            b"title" => self.in_title = true,
            b"br" => self.breaks = self.breaks.max(1),
            b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" => {
                self.breaks = 2;
                if self.is_markdown() {
                    self.push(&format!("{} ", "#".repeat(usize::from(name[1] - b'0'))));
                }
            }
            b"ul" | b"ol" => {
                self.block();
                // Deeper lists are shown as deep as this.
                if self.lists.len() < 64 {
                    self.lists.push((name == b"ol").then_some(0));
                }
            }
            b"li" => self.item(),
            b"tr" => self.breaks = self.breaks.max(1),
            b"td" | b"th" => self.cell(),
            b"pre" => {
                self.block();
                self.fence();
                self.verbatim += 1;
            }
            b"code" if self.verbatim == 0 => self.mark("`"),
            b"strong" | b"b" => self.mark("**"),
            b"em" | b"i" => self.mark("*"),
            b"a" => self.open_link(tag),
            b"img" => {
                if let Some(alt) = attribute(tag, b"alt").filter(|alt| !alt.trim().is_empty()) {
                    self.text(format!("[{}]", alt.trim()).as_bytes());
                }
            }
            _ if BLOCKS.contains(&name) => self.block(),
            _ => {}
        }
    }

    fn end(&mut self, name: &[u8]) {
        if let Some((skipped, depth)) = &mut self.skipping {
            *depth -= usize::from(skipped == name);
            if *depth == 0 {
                self.skipping = None;
            }
            return;
        }
        match name {
            b"title" => self.in_title = false,
            b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" => self.breaks = 2,
            b"ul" | b"ol" => {
                self.lists.pop();
                self.block();
            }
            b"pre" if self.verbatim > 0 => {
                self.verbatim -= 1;
                self.breaks = 1;
                self.fence();
                self.block();
            }
            b"code" if self.verbatim == 0 => self.mark("`"),
            b"strong" | b"b" => self.mark("**"),
            b"em" | b"i" => self.mark("*"),
            b"a" => self.close_link(),
            _ if BLOCKS.contains(&name) => self.block(),
            _ => {}
        }
    }

    fn text(&mut self, text: &[u8]) {
        if self.skipping.is_some() {
            return;
        }
        let text = String::from_utf8_lossy(text);
        if self.in_title {
            self.title.get_or_insert_default().push_str(&text);
            return;
        }
        if self.verbatim > 0 {
            return self.push(&text);
        }
        self.space |= text.starts_with(char::is_whitespace);
        for (i, word) in text.split_whitespace().enumerate() {
            self.space |= i > 0;
            self.push(word);
        }
        self.space |= text.ends_with(char::is_whitespace);
    }

    /// Writes what is due, and then this.
    fn push(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.breaks > 0 {
            if !self.out.is_empty() {
                self.out.extend(std::iter::repeat_n('\n', self.breaks));
            }
        } else if self.space && !self.out.is_empty() && !self.out.ends_with(char::is_whitespace) {
            self.out.push(' ');
        }
        (self.breaks, self.space) = (0, false);
        self.out.push_str(text);
    }

    fn block(&mut self) {
        self.breaks = self.breaks.max(if self.lists.is_empty() { 2 } else { 1 });
    }

    fn item(&mut self) {
        self.breaks = self.breaks.max(1);
        let indent = "  ".repeat(self.lists.len().saturating_sub(1));
        let bullet = match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!("{indent}{number}. ")
            }
            _ => format!("{indent}- "),
        };
        self.push(&bullet);
    }

    fn cell(&mut self) {
        if self.breaks == 0 && !self.out.is_empty() {
            self.space = true;
            self.push("| ");
        }
    }

    fn mark(&mut self, mark: &str) {
        if self.is_markdown() {
            self.push(mark);
        }
    }

    fn fence(&mut self) {
        if self.is_markdown() {
            self.push("```");
            self.breaks = 1;
        }
    }

    fn open_link(&mut self, tag: &StartTag<()>) {
        let target = attribute(tag, b"href").filter(|_| self.is_markdown());
        let url = target.and_then(|t| match self.base {
            Some(base) => base.join(t.trim()).ok(),
            None => Url::parse(t.trim()).ok(),
        });
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https" | "mailto")).map(String::from);
        if url.is_some() {
            self.push("[");
        }
        // One inside another ends it, as in a browser.
        if self.links.len() < 64 {
            self.links.push(url);
        }
    }

    fn close_link(&mut self) {
        if let Some(Some(url)) = self.links.pop() {
            self.space = false;
            self.push(&format!("]({url})"));
        }
    }

    fn finish(mut self, max: usize) -> Readable {
        self.out.truncate(self.out.floor_char_boundary(max));
        let title = self.title.map(|t| t.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|t| !t.is_empty());
        Readable { title, text: self.out.trim().to_owned() }
    }
}

fn attribute(tag: &StartTag<()>, name: &[u8]) -> Option<String> {
    let value = tag.attributes.get(&HtmlString::from(name.to_vec()))?;
    Some(String::from_utf8_lossy(&value.value).into_owned())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const PAGE: &str = "<!doctype html><html><head><title> A &amp;\n page </title><style>p { }</style><script>if (a < b) { '</p>' }</script></head>\
        <body><nav><a href=/>Home</a></nav><h1>News</h1><p>It is <b>good</b>,\n  <a href='/more?a=1&amp;b=2'>read on</a>.</p>\
        <ul><li>one<li>two<ol><li>a</ol></ul><pre>x  =  1\n  y</pre><table><tr><th>k<th>v<tr><td>1<td>2</table><img alt='a cat' src=x></body></html>";

    #[test]
    fn a_page_becomes_text_and_markdown() {
        let base = Url::parse("https://x.test/a/b").unwrap();
        let text = readable(PAGE, Some(&base), Style::Text, 10_000);
        assert_eq!(text.title.as_deref(), Some("A & page"));
        assert_eq!(text.text, "News\n\nIt is good, read on.\n\n- one\n- two\n  1. a\n\nx  =  1\n  y\n\nk | v\n1 | 2\n\n[a cat]");
        let markdown = readable(PAGE, Some(&base), Style::Markdown, 10_000).text;
        assert!(markdown.starts_with("# News\n\nIt is **good**, [read on](https://x.test/more?a=1&b=2).\n\n- one"), "{markdown}");
        assert!(markdown.contains("```\nx  =  1\n  y\n```"), "{markdown}");
    }

    #[test]
    fn links_that_do_more_than_lead_somewhere_are_text() {
        let html = "<a href='javascript:alert(1)'>a</a> <a href='data:text/html,x'>b</a> <a>c</a>";
        assert_eq!(readable(html, None, Style::Markdown, 1000).text, "a b c");
    }

    #[test]
    fn hostile_pages_cost_no_more_than_their_length() {
        let n = 200_000;
        let many_attributes: String = (0..n).map(|i| format!("a{i} ")).collect();
        let formatting: String = (0..n / 10).map(|i| format!("<b a={i}>")).collect();
        let pages = [
            "<div>".repeat(n),
            "<ul><li>".repeat(n),
            "<a href=http://x.test/>".repeat(n),
            "<table><tr><td>".repeat(n),
            "</div></ul></a></pre></script>".repeat(n / 10),
            format!("<p {many_attributes}>x"),
            format!("<p>{formatting}{}", "<p>x".repeat(n)),
            "<script>".repeat(n),
            "<svg>".repeat(n),
            "<!--".repeat(n),
            "&lt".repeat(n),
            "<".repeat(n),
        ];
        for page in pages {
            let began = Instant::now();
            let made = readable(&page, None, Style::Markdown, 100_000);
            assert!(made.text.len() <= 100_000);
            assert!(began.elapsed() < Duration::from_secs(20), "{} took {:?}", &page[..20], began.elapsed());
        }
    }
}
