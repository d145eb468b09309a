//! Settings: `config/default.toml` (compiled in), then a file, then the environment, then flags. The only place that reads the
//! environment. Every key and its meaning stands in `config/default.toml`.
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

mod agents;
pub mod duration;
mod secret;
mod server;
mod sources;
mod storage;
mod work;

pub use self::{
    agents::{Agent, Chat, McpServer, Memory, ModelProvider, Models, Plugins, Price, Sandbox, Teams, Tools, Transcribe},
    secret::Secret,
    server::{Auth, AuthMode, Http, Listen, LogFormat, Security, Telemetry},
    sources::{Setting, Sources},
    storage::{Attachments, Blobs, Database, Redis},
    work::{Approvals, Events, Goals, Notifications, Runs, Schedules, Worker},
};
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
