//! Settings: `config/default.toml` (compiled in), then a file, then the environment, then flags. The only place that reads the
//! environment. Every key and its meaning stands in `config/default.toml`.
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

mod sources;

pub use self::sources::{Setting, Sources};
use crate::error::{Error, Result};

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Environment names that others rely on, beside `RUNMILL_SECTION__KEY`.
const NAMED: &[(&str, &str)] = &[
    ("RUNMILL_DATA_DIR", "data_dir"),
    ("RUNMILL_PLATFORM_ADDR", "listen.platform"),
    ("RUNMILL_AGENTOS_ADDR", "listen.agentos"),
    ("RUNMILL_OPS_ADDR", "listen.ops"),
    ("RUNMILL_PUBLIC_URL", "listen.public_url"),
    ("RUNMILL_AUTH", "auth.mode"),
    ("RUNMILL_JWT_SECRET", "auth.jwt_secret"),
    ("RUNMILL_ENCRYPTION_KEY", "security.encryption_key"),
    ("RUNMILL_DATABASE_URL", "database.url"),
    ("RUNMILL_REDIS_URL", "redis.url"),
    ("RUNMILL_S3_ENDPOINT", "blobs.endpoint"),
    ("RUNMILL_S3_BUCKET", "blobs.bucket"),
    ("AWS_REGION", "blobs.region"),
    ("RUNMILL_MODEL", "models.default"),
    ("OPENAI_BASE_URL", "models.openai_base_url"),
    ("OPENAI_API_KEY", "models.openai_api_key"),
    ("ANTHROPIC_BASE_URL", "models.anthropic.base_url"),
    ("ANTHROPIC_API_KEY", "models.anthropic.api_key"),
    ("GEMINI_BASE_URL", "models.gemini.base_url"),
    ("GEMINI_API_KEY", "models.gemini.api_key"),
    ("DEEPSEEK_BASE_URL", "models.deepseek.base_url"),
    ("DEEPSEEK_API_KEY", "models.deepseek.api_key"),
    ("OLLAMA_BASE_URL", "models.ollama.base_url"),
    ("OLLAMA_API_KEY", "models.ollama.api_key"),
    ("RUNMILL_WHISPER_MODEL", "transcribe.model"),
    ("RUNMILL_SMTP_URL", "notifications.smtp_url"),
    ("RUST_LOG", "telemetry.log"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"),
];

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: Listen,
    pub auth: Auth,
    pub database: Database,
    pub redis: Redis,
    pub blobs: Blobs,
    pub attachments: Attachments,
    pub http: Http,
    pub lanes: BTreeMap<String, usize>,
    pub runs: Runs,
    pub worker: Worker,
    pub events: Events,
    pub models: Models,
    pub tools: Tools,
    pub sandbox: Sandbox,
    pub plugins: Plugins,
    #[serde(default)]
    pub mcp: BTreeMap<String, McpServer>,
    pub security: Security,
    pub transcribe: Transcribe,
    pub agents: BTreeMap<String, Agent>,
    pub approvals: Approvals,
    pub goals: Goals,
    pub schedules: Schedules,
    pub notifications: Notifications,
    pub memory: Memory,
    pub chat: Chat,
    pub teams: Teams,
    pub telemetry: Telemetry,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    pub platform: SocketAddr,
    pub agentos: SocketAddr,
    pub ops: SocketAddr,
    pub public_url: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    Open,
    Required,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub mode: AuthMode,
    pub jwt_secret: Secret,
    pub previous_jwt_secrets: Vec<Secret>,
    #[serde(with = "duration")]
    pub token_lifetime: Duration,
    #[serde(with = "duration")]
    pub stream_token_lifetime: Duration,
    pub login_attempts_per_minute: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    pub url: Secret,
    pub connections: u32,
    pub readers: u32,
    #[serde(with = "duration")]
    pub statement_timeout: Duration,
    #[serde(with = "duration")]
    pub acquire_timeout: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub url: Secret,
    pub prefix: String,
    #[serde(with = "duration")]
    pub block: Duration,
    #[serde(with = "duration")]
    pub response_timeout: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blobs {
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    pub public_endpoint: String,
    pub path_style: bool,
    pub access_key: Secret,
    pub secret_key: Secret,
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    #[serde(with = "duration")]
    pub timeout: Duration,
    #[serde(with = "duration")]
    pub url_lifetime: Duration,
    #[serde(with = "duration")]
    pub orphan_age: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachments {
    pub max_bytes: u64,
    pub types: Vec<String>,
    pub thread_files: i64,
    pub thread_bytes: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub max_body_bytes: usize,
    pub max_messages: usize,
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    pub requests_per_minute: u32,
    #[serde(with = "duration")]
    pub shutdown_grace: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    pub max_queued: u64,
    #[serde(with = "duration")]
    pub retry_after: Duration,
    pub max_attempts: i64,
    pub max_crashes: i64,
    #[serde(with = "duration")]
    pub backoff: Duration,
    #[serde(with = "duration")]
    pub max_backoff: Duration,
    #[serde(with = "duration")]
    pub queue_timeout: Duration,
    #[serde(with = "duration")]
    pub run_timeout: Duration,
    #[serde(with = "duration")]
    pub model_idle_timeout: Duration,
    #[serde(with = "duration")]
    pub retention: Duration,
    #[serde(with = "duration")]
    pub idempotency_retention: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    #[serde(with = "duration")]
    pub lease: Duration,
    #[serde(with = "duration")]
    pub reconcile: Duration,
    pub batch: i64,
    #[serde(with = "duration")]
    pub drain: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    #[serde(with = "duration")]
    pub retention: Duration,
    pub page: i64,
    pub buffer: usize,
    #[serde(with = "duration")]
    pub ping: Duration,
    #[serde(with = "duration")]
    pub flush: Duration,
    #[serde(with = "duration")]
    pub max_flush: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Models {
    pub default: String,
    pub openai_base_url: String,
    pub openai_api_key: Secret,
    pub openai_model: String,
    pub anthropic: ModelProvider,
    pub gemini: ModelProvider,
    pub deepseek: ModelProvider,
    pub ollama: ModelProvider,
    pub max_tokens: u64,
    pub temperature: f64,
    pub max_response_bytes: u64,
    #[serde(with = "duration")]
    pub test_wait: Duration,
    #[serde(with = "duration")]
    pub parallel_lease: Duration,
    pub parallel: BTreeMap<String, u32>,
    pub prices: BTreeMap<String, Price>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelProvider {
    pub base_url: String,
    pub api_key: Secret,
    pub model: String,
}

/// US dollars a million tokens; `None`: cached input costs as any other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub input: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<f64>,
    pub output: f64,
}

impl Price {
    /// Whether all of it is an amount of money.
    pub fn is_valid(&self) -> bool {
        let amount = |dollars: f64| (0.0..=1e6).contains(&dollars);
        amount(self.input) && self.cached_input.is_none_or(amount) && amount(self.output)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    #[serde(with = "duration")]
    pub timeout: Duration,
    pub max_output_bytes: usize,
    pub max_response_bytes: usize,
    pub max_definition_bytes: usize,
    pub calls_per_minute: u32,
    #[serde(with = "duration")]
    pub wait: Duration,
    pub search_endpoint: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    pub program: PathBuf,
    #[serde(with = "duration")]
    pub timeout: Duration,
    #[serde(with = "duration")]
    pub document_timeout: Duration,
    pub memory_bytes: u64,
    pub max_output_bytes: usize,
    pub parallel: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugins {
    #[serde(with = "duration")]
    pub sync_wait: Duration,
    #[serde(with = "duration")]
    pub timeout: Duration,
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    pub max_document_bytes: usize,
    pub max_response_bytes: usize,
    pub max_tools: usize,
}

/// An MCP server that the worker starts as a child process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McpServer {
    pub command: PathBuf,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, Secret>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    pub allow_private_hosts: Vec<String>,
    pub encryption_key: Secret,
    pub previous_encryption_keys: Vec<Secret>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transcribe {
    pub model: PathBuf,
    pub endpoint: String,
    pub api_key: Secret,
    pub hosted_model: String,
    pub max_bytes: u64,
    #[serde(with = "duration")]
    pub max_duration: Duration,
    pub per_minute: u32,
    #[serde(with = "duration")]
    pub wait: Duration,
    pub threads: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    pub name: String,
    pub system: String,
    pub model: String,
    pub tools: Vec<String>,
    pub max_iterations: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approvals {
    #[serde(with = "duration")]
    pub expires: Duration,
    /// Zero: never.
    #[serde(with = "duration")]
    pub escalate_after: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goals {
    pub max_tasks: usize,
    pub max_depth: usize,
    pub max_parallel: u32,
    pub max_replans: u32,
    #[serde(with = "duration")]
    pub claim: Duration,
    pub max_result_bytes: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedules {
    pub max_per_user: u32,
    #[serde(with = "duration")]
    pub min_interval: Duration,
    #[serde(with = "duration")]
    pub catch_up_window: Duration,
    pub catch_up_max: u32,
    pub max_failures: u32,
    pub max_buffered: u32,
    pub max_input_bytes: usize,
    #[serde(with = "duration")]
    pub retention: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notifications {
    #[serde(with = "duration")]
    pub retention: Duration,
    pub max_channels: u32,
    #[serde(with = "duration")]
    pub timeout: Duration,
    pub attempts: u32,
    #[serde(with = "duration")]
    pub backoff: Duration,
    #[serde(with = "duration")]
    pub max_backoff: Duration,
    pub smtp_url: Secret,
    pub from: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    #[serde(with = "duration")]
    pub wait: Duration,
    #[serde(with = "duration")]
    pub idle: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub max_per_user: usize,
    pub recall: usize,
    pub compact_above_tokens: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teams {
    pub max_agents: usize,
    pub max_nodes: usize,
    pub max_rounds: u32,
    pub max_history: usize,
    pub max_history_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    pub log: String,
    pub format: LogFormat,
    pub otlp_endpoint: String,
}

/// A value that is never printed: `Debug` and `Serialize` show whether it is set.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_empty() { "(not set)" } else { "(set)" })
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(if self.is_empty() { "(not set)" } else { "(set)" })
    }
}

impl Config {
    /// Defaults, then `file`, then the environment, then `flags`: see `Sources`.
    pub fn load(file: Option<&std::path::Path>, flags: &[(&str, String, String)]) -> Result<Self> {
        Sources::gather(file, flags).config()
    }

    /// The defaults alone, as tests start from.
    pub fn defaults() -> Result<Self> {
        let config: Self = toml::from_str(DEFAULTS).map_err(Error::internal)?;
        config.check()?;
        Ok(config)
    }

    pub fn is_distributed(&self) -> bool {
        !self.redis.url.is_empty()
    }

    /// The agent that a run names, or the first one when it names none.
    pub fn agent(&self, id: Option<&str>) -> Option<(&str, &Agent)> {
        match id {
            Some(id) => self.agents.get_key_value(id),
            None => self.agents.iter().next(),
        }
        .map(|(id, agent)| (id.as_str(), agent))
    }

    /// `provider:name` of the model in force when neither run nor agent names one: the first provider that has a key.
    pub fn default_model(&self) -> String {
        let models = &self.models;
        if !models.default.is_empty() {
            return models.default.clone();
        }
        let named = [
            ("openai", !models.openai_api_key.is_empty(), &models.openai_model),
            ("anthropic", !models.anthropic.api_key.is_empty(), &models.anthropic.model),
            ("gemini", !models.gemini.api_key.is_empty(), &models.gemini.model),
            ("deepseek", !models.deepseek.api_key.is_empty(), &models.deepseek.model),
            ("ollama", !models.ollama.base_url.is_empty(), &models.ollama.model),
        ];
        let found = named.into_iter().find(|(_, configured, name)| *configured && !name.is_empty());
        found.map_or_else(|| "offline:scripted-demo".to_owned(), |(provider, _, name)| format!("{provider}:{name}"))
    }

    fn check(&self) -> Result<()> {
        let mut bad = Vec::new();
        let mut rule = |ok: bool, field: &str, message: &str| {
            if !ok {
                bad.extend(Error::invalid(field, message).fields);
            }
        };
        let lanes = ["runs", "plans", "media", "bulk"];
        rule(
            lanes.iter().all(|l| self.lanes.get(*l).is_some_and(|n| *n > 0)),
            "lanes",
            "runs, plans, media and bulk each need at least 1",
        );
        rule(self.lanes.len() == lanes.len(), "lanes", "the lanes are runs, plans, media and bulk");
        rule(!self.agents.is_empty(), "agents", "at least one agent is needed");
        rule(self.worker.lease >= self.worker.heartbeat * 3, "worker.lease", "at least three heartbeats");
        rule(self.sandbox.parallel >= 1, "sandbox.parallel", "at least 1");
        rule(self.sandbox.memory_bytes >= 16 << 20, "sandbox.memory_bytes", "at least 16 MiB");
        rule(self.runs.max_attempts >= 1, "runs.max_attempts", "at least 1");
        rule(self.memory.max_per_user >= 1, "memory.max_per_user", "at least 1");
        rule(self.events.page >= 1 && self.worker.batch >= 1, "events.page", "pages and batches are at least 1");
        rule(
            self.database.url.is_empty() || self.database.url.expose().starts_with("postgres"),
            "database.url",
            "postgres://… or empty for SQLite",
        );
        rule(
            self.blobs.access_key.is_empty() == self.blobs.secret_key.is_empty(),
            "blobs.access_key",
            "access_key and secret_key are given together, or neither",
        );
        rule(self.models.default.is_empty() || self.models.default.contains(':'), "models.default", "provider:name");
        let models = &self.models;
        let servers = ["openai", "anthropic", "gemini", "deepseek", "ollama"];
        rule(
            models.parallel.iter().all(|(provider, n)| *n > 0 && servers.contains(&provider.as_str())),
            "models.parallel",
            "at least 1 for each of openai, anthropic, gemini, deepseek and ollama",
        );
        rule(models.parallel_lease >= Duration::from_millis(100), "models.parallel_lease", "at least 100ms");
        rule(models.prices.values().all(Price::is_valid), "models.prices", "US dollars a million tokens, 0 or more");
        let open = self.auth.mode == AuthMode::Open;
        rule(
            !open || self.listen.platform.ip().is_loopback(),
            "auth.mode",
            "open is for loopback addresses only; set RUNMILL_AUTH=required",
        );
        rule(
            open || self.auth.jwt_secret.expose().len() >= 32,
            "auth.jwt_secret",
            "at least 32 bytes are needed when sign-in is required; set RUNMILL_JWT_SECRET (openssl rand -hex 32)",
        );
        if bad.is_empty() { Ok(()) } else { Err(Error::invalid_fields(bad)) }
    }
}

/// "250ms", "30s", "15m", "24h", "30d".
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn parse(text: &str) -> Option<Duration> {
        let at = text.find(|c: char| !c.is_ascii_digit())?;
        let n: u64 = text[..at].parse().ok()?;
        let ms = match &text[at..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        n.checked_mul(ms).map(Duration::from_millis)
    }

    pub fn print(d: Duration) -> String {
        let ms = d.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
        let (by, unit) = units.into_iter().find(|(by, _)| ms > 0 && ms.is_multiple_of(*by)).unwrap_or((1, "ms"));
        format!("{}{unit}", ms / by)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no duration; write 250ms, 30s, 15m, 24h or 30d")))
    }

    pub fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&print(*value))
    }
}
