//! `rss_read`: the newest entries of a feed.
use async_trait::async_trait;
use feed_rs::{
    model::{Entry, Feed, Text},
    parser,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    client::{Web, read},
    html::{Style, readable},
};
use crate::tools::{Tool, ToolContext, ToolError, parse};

const MAX_URL_LENGTH: usize = 8192;
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 100;
const MAX_SUMMARY_BYTES: usize = 2000;

pub struct RssRead {
    web: Web,
}

#[derive(Deserialize)]
struct Arguments {
    url: String,
    #[serde(default)]
    limit: Option<usize>,
}

impl RssRead {
    pub fn new(web: Web) -> Self {
        Self { web }
    }
}

#[async_trait]
impl Tool for RssRead {
    fn name(&self) -> &str {
        "rss_read"
    }

    fn category(&self) -> &str {
        "web"
    }

    fn description(&self) -> &str {
        "Reads a feed (RSS, Atom or JSON Feed) and answers with its title and its entries, as the feed orders them."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "required": ["url"], "additionalProperties": false,
            "properties": {
                "url": {"type": "string", "maxLength": MAX_URL_LENGTH},
                "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
            },
        })
    }

    fn output(&self) -> Value {
        let text = json!({"type": "string"});
        json!({
            "type": "object", "required": ["items"],
            "properties": {
                "title": text, "description": text, "link": text,
                "items": {"type": "array", "items": {"type": "object", "required": ["id"], "properties": {
                    "id": text, "title": text, "link": text, "summary": text,
                    "published": {"type": "string", "format": "date-time"}, "authors": {"type": "array", "items": text},
                }}},
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
        let body = read(&mut response, cx.app.config.tools.max_response_bytes).await?;
        if body.truncated {
            let limit = cx.app.config.tools.max_response_bytes;
            return Err(ToolError::new("RESPONSE_TOO_LARGE", format!("the feed is larger than {limit} bytes")));
        }
        let limit = arguments.limit.unwrap_or(DEFAULT_LIMIT);
        let base = url.to_string();
        // On a thread of its own: a feed of megabytes takes its time.
        let work = tokio::task::spawn_blocking(move || {
            let parsed = parser::Builder::new().base_uri(Some(base)).build().parse(body.bytes.as_slice());
            parsed.map(|feed| shown(feed, limit)).map_err(|e| ToolError::new("NO_FEED", format!("it is no feed: {e}")))
        });
        work.await.map_err(|e| ToolError::new("INTERNAL", e.to_string()))?
    }
}

fn shown(feed: Feed, limit: usize) -> Value {
    let mut shown = Map::new();
    put(&mut shown, "title", plain(feed.title));
    put(&mut shown, "description", plain(feed.description));
    put(&mut shown, "link", feed.links.into_iter().next().map(|link| link.href));
    let items: Vec<_> = feed.entries.into_iter().take(limit).map(entry).collect();
    shown.insert("items".into(), items.into());
    shown.into()
}

fn entry(entry: Entry) -> Value {
    let mut shown = Map::new();
    put(&mut shown, "id", Some(entry.id));
    put(&mut shown, "title", plain(entry.title));
    put(&mut shown, "link", entry.links.into_iter().next().map(|link| link.href));
    let content = entry.content.and_then(|c| c.body).map(|body| stripped(&body));
    put(&mut shown, "summary", plain(entry.summary).or(content));
    put(
        &mut shown,
        "published",
        entry.published.or(entry.updated).map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
    );
    let authors: Vec<_> = entry.authors.into_iter().filter_map(|a| a.name).collect();
    if !authors.is_empty() {
        shown.insert("authors".into(), authors.into());
    }
    shown.into()
}

fn put(into: &mut Map<String, Value>, key: &str, value: Option<String>) {
    if let Some(value) = value.filter(|v| !v.is_empty()) {
        into.insert(key.to_owned(), value.into());
    }
}

fn plain(text: Option<Text>) -> Option<String> {
    text.map(|t| stripped(&t.content))
}

/// Feeds put markup where text is wanted, whatever they call it.
fn stripped(text: &str) -> String {
    readable(text, None, Style::Text, MAX_SUMMARY_BYTES).text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_and_entities_do_not_hurt() {
        let deep = format!(
            "<rss version=\"2.0\"><channel><item><description>{}</description></item></channel></rss>",
            "<b>".repeat(100_000)
        );
        let atom = format!(
            "<feed xmlns=\"http://www.w3.org/2005/Atom\"><entry><content type=\"xhtml\">{}</content></entry></feed>",
            "<div>".repeat(100_000)
        );
        let bomb = "<!DOCTYPE r [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\">]><rss version=\"2.0\"><channel><title>&b;</title></channel></rss>";
        let file = "<!DOCTYPE r [<!ENTITY f SYSTEM \"file:///etc/passwd\">]><rss version=\"2.0\"><channel><title>&f;</title></channel></rss>";
        let many = format!("<rss version=\"2.0\"><channel>{}</channel></rss>", "<item><title>x</title></item>".repeat(50_000));
        for text in [deep.as_str(), atom.as_str(), bomb, file, many.as_str()] {
            let shown = parser::parse(text.as_bytes()).map(|feed| shown(feed, 10));
            let told = shown.map(|v| v.to_string()).unwrap_or_default();
            assert!(told.len() < 10_000 && !told.contains("root:"), "{}", &told[..told.len().min(200)]);
        }
    }
}
