//! What goes out to servers that users name: the request of an HTTP tool, and the signature of a webhook. Three lines: the tool's
//! configuration, the arguments of a call, the webhook's secret; the rest is the webhook's body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runmill_fuzz::line;
use runmill_shared::{clock::Timestamp, domain::tool::http::HttpTool};
use runmill_worker::tools::web::signature;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (config, rest) = line(text);
    let (arguments, rest) = line(rest);
    let (secret, body) = line(rest);
    signed(secret, body);
    if let (Ok(config), Ok(arguments)) = (serde_json::from_str(config), serde_json::from_str(arguments)) {
        requested(&config, &arguments);
    }
});

fn signed(secret: &str, body: &str) {
    let now = Timestamp(1_700_000_000_000_000);
    let sign = |body: &str| signature::headers("id", now, body, Some(secret)).map(|headers| headers["webhook-signature"].clone());
    match sign(body) {
        Ok(signature) => {
            assert!(signature.to_str().is_ok_and(|text| text.starts_with("v1,")));
            assert_eq!(sign(body).as_ref(), Ok(&signature));
            assert_ne!(sign(&format!("{body} ")), Ok(signature), "another body, the same signature");
        }
        Err(e) => assert_eq!(e.code, "SECRET_UNUSABLE"),
    }
}

fn requested(config: &Value, arguments: &Value) {
    let tool = match HttpTool::parse(config, &json!({ "type": "object" })) {
        Ok(tool) => tool,
        Err(bad) => return assert!(bad.iter().all(|f| f.field.starts_with("config")), "{bad:?}"),
    };
    let Ok(request) = tool.request(arguments) else { return };
    for (name, value) in &request.headers {
        assert!(!value.chars().any(char::is_control) && !name.is_empty(), "{name}: {value:?}");
    }
    // A template that names its server asks no other, whatever the arguments say.
    let given = config["url"].as_str().unwrap_or_default();
    let named = given.split_once("{{").map_or(given, |(before, _)| before);
    let authority = named.split_once("://").and_then(|(_, rest)| Some(rest.split_once(['/', '?', '#'])?.0));
    if let Some(host) = authority.and_then(|_| reqwest::Url::parse(named).ok()?.host_str().map(str::to_owned)) {
        assert!(matches!(request.url.scheme(), "http" | "https"), "{}", request.url);
        assert_eq!(request.url.host_str(), Some(host.as_str()), "{given} with {arguments}");
    }
    if config["body"].is_object() {
        assert!(request.body.is_none_or(|body| serde_json::from_str::<Value>(&body).is_ok()));
    }
}
