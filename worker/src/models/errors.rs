//! What goes wrong with a model, in eleven kinds, from whatever the provider said.
use std::{fmt, time::Duration};

use chrono::DateTime;
use rig_core::{
    ProviderResponseError,
    error::ProviderError,
    http_client::{self, HeaderMap},
};
use runmill_shared::{Error, ErrorKind, config::Secret};
use serde_json::Value;

use super::http::{IdleTimeout, TooLong};
use crate::tools::ssrf::Refused;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelErrorKind {
    /// 429; `retry_after` when the provider named one.
    RateLimited,
    /// The provider is down or too busy, before or in the middle of an answer.
    Overloaded,
    /// The conversation is longer than the model takes.
    ContextOverflow,
    /// The key is missing, wrong, or its account is spent.
    Auth,
    InvalidRequest,
    /// The answer broke off.
    Truncated,
    /// Not a byte for `runs.model_idle_timeout`.
    IdleTimeout,
    /// No answer began.
    Network,
    ContentFilter,
    /// Its address, which a user named, is none that may be reached. Nothing was sent.
    Blocked,
    /// The provider sent what is not its protocol.
    Malformed,
}

impl ModelErrorKind {
    /// Stable, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::RateLimited => "MODEL_RATE_LIMITED",
            Self::Overloaded => "MODEL_OVERLOADED",
            Self::ContextOverflow => "MODEL_CONTEXT_OVERFLOW",
            Self::Auth => "MODEL_AUTH",
            Self::InvalidRequest => "MODEL_INVALID_REQUEST",
            Self::Truncated => "MODEL_TRUNCATED",
            Self::IdleTimeout => "MODEL_IDLE_TIMEOUT",
            Self::Network => "MODEL_UNREACHABLE",
            Self::ContentFilter => "MODEL_CONTENT_FILTER",
            Self::Blocked => "BLOCKED_ADDRESS",
            Self::Malformed => "MODEL_MALFORMED",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::RateLimited => "the model provider limits the rate of requests",
            Self::Overloaded => "the model provider failed or is overloaded",
            Self::ContextOverflow => "the conversation is longer than the model takes",
            Self::Auth => "the model provider does not accept the key or its account",
            Self::InvalidRequest => "the model provider refused the request",
            Self::Truncated => "the model's answer broke off",
            Self::IdleTimeout => "the model sent nothing for too long",
            Self::Network => "the model provider cannot be reached",
            Self::ContentFilter => "the model provider's content filter stopped the answer",
            Self::Blocked => "the model's address is not one of the public internet",
            Self::Malformed => "the model provider sent an answer that cannot be read",
        }
    }
}

/// `message` is safe to show: no key, no address, and of the provider's own words only what explains a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelError {
    pub kind: ModelErrorKind,
    pub message: String,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
}

impl ModelError {
    pub fn new(kind: ModelErrorKind) -> Self {
        Self { kind, message: kind.sentence().to_owned(), retry_after: None }
    }

    pub(super) fn detailed(kind: ModelErrorKind, detail: &str) -> Self {
        Self { message: format!("{}: {detail}", kind.sentence()), ..Self::new(kind) }
    }

    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        use ModelErrorKind as K;
        matches!(self.kind, K::RateLimited | K::Overloaded | K::Truncated | K::IdleTimeout | K::Network | K::Malformed)
    }

    /// Reads rig's error. `key` is cut out of anything that the provider echoed.
    pub(super) fn from_rig(error: &ProviderError, key: &Secret) -> Self {
        use ModelErrorKind as K;
        match error {
            ProviderError::Truncated => Self::new(K::Truncated),
            ProviderError::Http(error) => Self::from_transport(error),
            ProviderError::ProviderResponse(reply) | ProviderError::InvalidAuthentication(reply) => Self::from_reply(reply, key),
            ProviderError::Request(_) | ProviderError::Url(_) | ProviderError::UnsupportedOption(_) => {
                Self::detailed(K::InvalidRequest, &printable(&error.to_string(), key))
            }
            _ => Self::new(K::Malformed),
        }
    }

    fn from_transport(error: &http_client::Error) -> Self {
        use ModelErrorKind as K;
        match error {
            http_client::Error::Instance(cause) if cause.is::<IdleTimeout>() => Self::new(K::IdleTimeout),
            http_client::Error::Instance(cause) if cause.is::<TooLong>() => Self::detailed(K::Malformed, "it does not end"),
            http_client::Error::Instance(cause) if Refused::within(cause.as_ref()).is_some() => Self::new(K::Blocked),
            http_client::Error::Instance(cause) => {
                let in_body = cause.downcast_ref::<reqwest::Error>().is_some_and(|e| e.is_body() || e.is_decode());
                Self::new(if in_body { K::Truncated } else { K::Network })
            }
            http_client::Error::InvalidContentType(_) => {
                Self::detailed(K::InvalidRequest, "it does not answer with an event stream; is the base URL right?")
            }
            _ => Self::new(K::Network),
        }
    }

    fn from_reply(reply: &ProviderResponseError, key: &Secret) -> Self {
        use ModelErrorKind as K;
        let said = Said::read(&reply.body);
        let status = reply.status.map(|s| s.as_u16()).filter(|s| *s >= 300).or(said.status);
        let kind = if reply.refusal { K::ContentFilter } else { classify(status, &said) };
        let explains = matches!(kind, K::InvalidRequest | K::ContextOverflow | K::ContentFilter);
        let error = match printable(&said.message, key) {
            detail if explains && !detail.is_empty() => Self::detailed(kind, &detail),
            _ => Self::new(kind),
        };
        Self { retry_after: reply.headers.as_ref().and_then(retry_after).or(said.retry_after), ..error }
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.code(), self.message)
    }
}

impl std::error::Error for ModelError {}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        use ModelErrorKind as K;
        let kind = match error.kind {
            K::RateLimited => ErrorKind::Limited,
            K::ContextOverflow | K::InvalidRequest | K::ContentFilter | K::Blocked => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        };
        let mut public = Self::new(kind, error.kind.code(), error.message);
        public.retry_after = error.retry_after;
        public
    }
}

/// The parts of an error body that the servers agree on, more or less.
struct Said {
    code: String,
    message: String,
    /// Gateways put the upstream's HTTP status into `error.code` of a chunk, and Gemini always does.
    status: Option<u16>,
    /// Gemini's `RetryInfo`.
    retry_after: Option<Duration>,
}

impl Said {
    fn read(body: &str) -> Self {
        let json: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        // Gemini's bodies are a list where no event stream was asked for.
        let json = json.get(0).unwrap_or(&json);
        let error = json.get("error").unwrap_or(json);
        let string = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let message = error.as_str().or_else(|| error.get("message")?.as_str()).or_else(|| json.get("detail")?.as_str());
        let details = error.get("details").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let reason = details.iter().find_map(|d| d.get("reason")?.as_str()).unwrap_or_default();
        let delay = details.iter().find_map(|d| d.get("retryDelay")?.as_str()?.strip_suffix('s')?.parse::<f64>().ok());
        Self {
            code: format!("{} {} {} {reason}", string("code"), string("type"), string("status")).to_lowercase(),
            retry_after: delay.filter(|s| (0.0..=86_400.0).contains(s)).map(Duration::from_secs_f64),
            message: message.unwrap_or_default().to_owned(),
            status: error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok()),
        }
    }
}

/// How servers word that the conversation is too long (OpenAI, Anthropic, Gemini, vLLM, llama.cpp, Ollama, LM Studio, the gateways).
const OVERFLOWS: [&str; 12] = [
    "context_length",
    "context length",
    "context window",
    "context size",
    "prompt is too long",
    "input is too long",
    "too many tokens",
    "exceed_context",
    "exceed context limit",
    "input token count",
    "maximum prompt length",
    "request_too_large",
];

/// How they word that the account does not let us in, whatever the status.
const AUTHS: [&str; 8] = [
    "insufficient_quota",
    "invalid_api_key",
    "api_key_invalid",
    "authentication_error",
    "permission_error",
    "permission_denied",
    "unauthenticated",
    "billing_error",
];

/// `status` is none for an error in the middle of a stream.
fn classify(status: Option<u16>, said: &Said) -> ModelErrorKind {
    use ModelErrorKind as K;
    let has = |text: &str| said.code.contains(text);
    let message = said.message.to_lowercase();
    let overflow = OVERFLOWS.iter().any(|words| has(words) || message.contains(words));
    match status {
        Some(401 | 403) => K::Auth,
        Some(402) => K::Auth,
        _ if AUTHS.iter().any(|code| has(code)) || message.contains("credit balance is too low") => K::Auth,
        Some(429) => K::RateLimited,
        Some(413) => K::ContextOverflow,
        _ if overflow => K::ContextOverflow,
        _ if has("content_filter") || has("content_policy") => K::ContentFilter,
        Some(408 | 425 | 500..) => K::Overloaded,
        Some(_) => K::InvalidRequest,
        None if has("rate_limit") || has("resource_exhausted") => K::RateLimited,
        None if has("invalid_request") => K::InvalidRequest,
        None => K::Overloaded,
    }
}

/// `retry-after-ms`, or `Retry-After` in seconds or as a date, which is read against the reply's own `Date`: our clock is not asked.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| text(name)?.parse::<f64>().ok().filter(|n| (0.0..=86_400_000.0).contains(n));
    if let Some(ms) = number("retry-after-ms") {
        return Some(Duration::from_secs_f64(ms / 1000.0));
    }
    if let Some(seconds) = number("retry-after") {
        return Some(Duration::from_secs_f64(seconds));
    }
    let date = |name: &str| DateTime::parse_from_rfc2822(text(name)?).ok();
    (date("retry-after")? - date("date")?).to_std().ok()
}

/// A provider's words in one short line without the key.
fn printable(text: &str, key: &Secret) -> String {
    let text = if key.expose().len() < 4 { text.to_owned() } else { text.replace(key.expose(), "[key]") };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ModelErrorKind as K, *};

    fn kind(status: Option<u16>, body: &Value) -> K {
        let said = Said::read(&body.to_string());
        classify(status.or(said.status), &said)
    }

    #[test]
    fn what_servers_say_has_one_kind() {
        let error = |code: Value, message: &str| json!({"error": {"code": code, "type": "t", "message": message}});
        let cases = [
            (Some(429), error(json!("rate_limit_exceeded"), "slow down"), K::RateLimited),
            (Some(429), error(json!("insufficient_quota"), "pay"), K::Auth),
            (Some(401), error(json!("invalid_api_key"), "no"), K::Auth),
            (Some(400), error(json!("context_length_exceeded"), "x"), K::ContextOverflow),
            (Some(400), error(json!(null), "This model's maximum context length is 8192 tokens."), K::ContextOverflow),
            (Some(500), error(json!(500), "the request exceeds the available context size"), K::ContextOverflow),
            (Some(400), error(json!("content_filter"), "x"), K::ContentFilter),
            (Some(404), error(json!("model_not_found"), "no such model"), K::InvalidRequest),
            (Some(422), json!({"detail": "bad"}), K::InvalidRequest),
            (Some(503), json!("<html>"), K::Overloaded),
            (None, error(json!("server_error"), "x"), K::Overloaded),
            (None, error(json!(429), "upstream"), K::RateLimited),
            (None, error(json!("rate_limit_exceeded"), "x"), K::RateLimited),
            (None, json!({"error": "boom"}), K::Overloaded),
            (Some(529), json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), K::Overloaded),
            (None, json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), K::Overloaded),
            (
                Some(400),
                error(json!("invalid_request_error"), "prompt is too long: 210000 tokens > 200000 maximum"),
                K::ContextOverflow,
            ),
            (Some(400), error(json!(null), "Your credit balance is too low to access the Anthropic API."), K::Auth),
            (Some(413), error(json!("request_too_large"), "Request exceeds the maximum size"), K::ContextOverflow),
            (
                Some(400),
                error(json!(400), "The input token count (1200000) exceeds the maximum number of tokens allowed"),
                K::ContextOverflow,
            ),
            (None, error(json!(503), "The model is overloaded."), K::Overloaded),
            (Some(402), error(json!("invalid_request_error"), "Insufficient Balance"), K::Auth),
            (Some(404), json!({"error": "model \"x\" not found, try pulling it first"}), K::InvalidRequest),
        ];
        for (status, body, expected) in cases {
            assert_eq!(kind(status, &body), expected, "{status:?} {body}");
        }
    }

    #[test]
    fn what_gemini_says_stands_in_the_details() {
        let error = |code: u16, status: &str, detail: Value| json!([{"error": {"code": code, "status": status, "message": "m", "details": [{"@type": "x"}, detail]}}]);
        let said = Said::read(&error(429, "RESOURCE_EXHAUSTED", json!({"retryDelay": "34.5s"})).to_string());
        assert_eq!((classify(None, &said), said.retry_after), (K::RateLimited, Some(Duration::from_millis(34_500))));
        assert_eq!(kind(Some(400), &error(400, "INVALID_ARGUMENT", json!({"reason": "API_KEY_INVALID"}))), K::Auth);
        assert_eq!(kind(Some(400), &error(400, "INVALID_ARGUMENT", json!({}))), K::InvalidRequest);
        assert_eq!(kind(Some(503), &error(503, "UNAVAILABLE", json!({}))), K::Overloaded);
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        let read = |pairs: &[(&'static str, &str)]| {
            retry_after(&pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect())
        };
        assert_eq!(read(&[("retry-after", "2")]), Some(Duration::from_secs(2)));
        assert_eq!(read(&[("retry-after", "7"), ("retry-after-ms", "1500")]), Some(Duration::from_millis(1500)));
        let date = ("date", "Wed, 21 Oct 2026 07:28:00 GMT");
        assert_eq!(read(&[("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT"), date]), Some(Duration::from_secs(30)));
        assert_eq!(read(&[("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT")]), None);
        assert_eq!(read(&[("retry-after", "-5")]), None);
    }

    #[test]
    fn the_key_is_cut_out_of_what_a_provider_echoes() {
        let key = Secret::new("sk-very-secret");
        let reply = ProviderResponseError::new(
            http_client::StatusCode::BAD_REQUEST,
            json!({"error": {"message": "bad header: Bearer sk-very-secret"}}).to_string(),
        );
        let error = ModelError::from_reply(&reply, &key);
        assert_eq!(error.message, "the model provider refused the request: bad header: Bearer [key]");
    }
}
