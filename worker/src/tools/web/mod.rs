//! Tools that reach the web: THE list, and what they share.
pub mod client;
mod html;
mod http_request;
mod rss_read;
mod send_webhook;
pub mod signature;
mod url_parse;
mod web_fetch;
mod web_search;

use std::sync::Arc;

use runmill_shared::{Result, config::Config};

pub use self::client::Web;
use super::Tool;

/// Those that work with these settings.
///
/// # Errors
/// `Invalid` for a setting that is no URL or no host.
pub fn tools(config: &Config, web: &Web) -> Result<Vec<Arc<dyn Tool>>> {
    let mut all: Vec<Arc<dyn Tool>> = vec![
        Arc::new(http_request::HttpRequest::new(web.clone())),
        Arc::new(rss_read::RssRead::new(web.clone())),
        Arc::new(send_webhook::SendWebhook::new(web.clone())),
        Arc::new(url_parse::UrlParse),
        Arc::new(web_fetch::WebFetch::new(web.clone())),
    ];
    if let Some(search) = web_search::WebSearch::from_config(config)? {
        all.push(Arc::new(search));
    }
    Ok(all)
}
