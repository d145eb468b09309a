//! `web_fetch`: a page as a reader sees it.
use std::borrow::Cow;

use async_trait::async_trait;
use encoding_rs::{Encoding, UTF_8};
use reqwest::{Url, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    client::{Read, Web, content_type, is_json, read},
    html::{Style, readable},
};
use crate::tools::{Tool, ToolContext, ToolError, parse};

const MAX_URL_LENGTH: usize = 8192;
/// Where a page says its encoding, if its server does not.
const PROLOGUE: usize = 1024;

pub struct WebFetch {
    web: Web,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Text,
    #[default]
    Markdown,
    Html,
}

#[derive(Deserialize)]
struct Arguments {
    url: String,
    #[serde(default)]
    format: Format,
}

impl WebFetch {
    pub fn new(web: Web) -> Self {
        Self { web }
    }
}

#[async_trait]
impl Tool for WebFetch {
    fn name(&self) -> &str {
        "web_fetch"
    }

    fn category(&self) -> &str {
        "web"
    }

    fn description(&self) -> &str {
        "Reads a web page and answers with its title and its readable text: as markdown with links, as plain text, or as the HTML itself. \
         Pages that are text or JSON come as they are."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "required": ["url"], "additionalProperties": false,
            "properties": {
                "url": {"type": "string", "maxLength": MAX_URL_LENGTH, "description": "http:// or https://, without credentials"},
                "format": {"type": "string", "enum": ["markdown", "text", "html"], "default": "markdown"},
            },
        })
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["url", "content_type", "content"],
            "properties": {
                "url": {"type": "string", "description": "after redirects"}, "title": {"type": "string"},
                "content_type": {"type": "string"}, "content": {"type": "string"}, "truncated": {"type": "boolean"},
            },
        })
    }

    fn is_limited(&self) -> bool {
        true
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let arguments: Arguments = parse(arguments)?;
        let (url, mut response) = self.web.fetch(&arguments.url).await?;
        let kind = content_type(response.headers());
        let is_html = matches!(kind.as_str(), "text/html" | "application/xhtml+xml");
        if !(is_html || kind.is_empty() || kind.starts_with("text/") || is_json(&kind) || kind.ends_with("xml")) {
            let message = format!("{kind} is no text that can be read here");
            return Err(ToolError::new("UNSUPPORTED_CONTENT", message));
        }
        let charset = charset_of(response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default());
        let page = read(&mut response, cx.app.config.tools.max_response_bytes).await?;
        let truncated = page.truncated;
        let text = decode(page, charset.or(if is_html { Some(UTF_8) } else { None }), is_html);
        let mut answer = json!({ "url": url.as_str(), "content_type": kind });
        if is_html && !matches!(arguments.format, Format::Html) {
            let style = if matches!(arguments.format, Format::Text) { Style::Text } else { Style::Markdown };
            let max = cx.max_output_bytes;
            let made = read_html(text, url, style, max).await?;
            answer["content"] = made.text.into();
            if let Some(title) = made.title {
                answer["title"] = title.into();
            }
        } else {
            answer["content"] = text.into();
        }
        if truncated {
            answer["truncated"] = true.into();
        }
        Ok(answer)
    }
}

/// On a thread of its own: a page of megabytes takes its time.
async fn read_html(text: String, url: Url, style: Style, max: usize) -> Result<super::html::Readable, ToolError> {
    let work = tokio::task::spawn_blocking(move || readable(&text, Some(&url), style, max));
    work.await.map_err(|e| ToolError::new("INTERNAL", e.to_string()))
}

fn charset_of(text: &str) -> Option<&'static Encoding> {
    let at = text.to_ascii_lowercase().find("charset=")?;
    let label = text[at + "charset=".len()..].trim_start_matches(['"', '\'']);
    Encoding::for_label(label.split(['"', '\'', ';', ' ', '>', '/']).next().unwrap_or_default().as_bytes())
}

/// By its byte order mark, its server's word, or its own; else as UTF-8.
fn decode(page: Read, charset: Option<&'static Encoding>, is_html: bool) -> String {
    let said = charset.filter(|c| *c != UTF_8);
    let own = || is_html.then(|| charset_of(&String::from_utf8_lossy(&page.bytes[..page.bytes.len().min(PROLOGUE)]))).flatten();
    let encoding = said.or_else(own).unwrap_or(UTF_8);
    match encoding.decode(&page.bytes).0 {
        Cow::Owned(text) => text,
        // It is what was read, less its byte order mark.
        Cow::Borrowed(_) => page.into_text().trim_start_matches('\u{feff}').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_in_its_encoding() {
        let text = |bytes: &[u8], charset: Option<&str>| {
            decode(Read { bytes: bytes.to_vec(), truncated: false }, charset.and_then(charset_of), true)
        };
        assert_eq!(text("Grüße".as_bytes(), None), "Grüße");
        assert_eq!(text(b"Gr\xfc\xdfe", Some("text/html; charset=ISO-8859-1")), "Grüße");
        assert_eq!(text(b"<meta charset=\"windows-1252\">\x80", None), "<meta charset=\"windows-1252\">€");
        assert_eq!(text(b"\xef\xbb\xbfa", None), "a");
        assert_eq!(text(b"a\xff", Some("text/html; charset=nonsense")), "a\u{fffd}");
    }
}
