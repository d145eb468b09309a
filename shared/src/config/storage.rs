//! Where things are kept.
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Secret, duration};

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
