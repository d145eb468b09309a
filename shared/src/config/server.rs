//! What listens, who may come in, and what is told of it.
use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Secret, duration};

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
pub struct Security {
    pub allow_private_hosts: Vec<String>,
    pub encryption_key: Secret,
    pub previous_encryption_keys: Vec<Secret>,
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
