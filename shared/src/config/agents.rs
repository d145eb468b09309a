//! What agents are, and what they work with.
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Secret, duration};

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
