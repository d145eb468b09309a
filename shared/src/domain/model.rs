//! Which server is asked for which model, and what it costs.
use serde::{Deserialize, Serialize};

use super::chat::Usage;
use crate::config::{Price, Secret};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// And whatever speaks its chat completions, at any base URL.
    Openai,
    Anthropic,
    Gemini,
    Deepseek,
    Ollama,
    /// Scripted answers without a network.
    Offline,
}

impl Provider {
    pub const ALL: [Self; 6] = [Self::Openai, Self::Anthropic, Self::Gemini, Self::Deepseek, Self::Ollama, Self::Offline];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Deepseek => "deepseek",
            Self::Ollama => "ollama",
            Self::Offline => "offline",
        }
    }

    /// `openai_compatible` is another name of `openai`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = if text == "openai_compatible" { "openai" } else { text };
        Self::ALL.into_iter().find(|p| p.as_str() == text)
    }

    /// Every name, for messages.
    pub fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

/// What a million tokens cost, in millionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prices {
    pub input: u64,
    pub cached_input: u64,
    pub output: u64,
}

impl From<Price> for Prices {
    fn from(p: Price) -> Self {
        // Checked where it came in: 0 to a million dollars.
        let micros = |dollars: f64| (dollars * 1e6).round() as u64;
        Self { input: micros(p.input), cached_input: micros(p.cached_input.unwrap_or(p.input)), output: micros(p.output) }
    }
}

impl Prices {
    /// Millionths of a US dollar, rounded up: a budget is never exceeded by rounding.
    pub fn cost(&self, usage: &Usage) -> u64 {
        let part = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let cached = usage.cached_input_tokens.min(usage.input_tokens);
        let input = part(usage.input_tokens - cached, self.input) + part(cached, self.cached_input);
        let all = input + part(usage.output_tokens, self.output);
        u64::try_from(all.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// What a model configuration's row keeps as JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelSettings {
    pub temperature: Option<f64>,
    pub max_tokens: Option<u64>,
    pub prices: Option<Price>,
    /// An admin named the base URL: it may be a loopback or private address.
    pub any_address: bool,
}

/// One model at one server, with all that a call needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub provider: Provider,
    pub name: String,
    /// `None`: the provider's own, as the settings have it.
    pub base_url: Option<String>,
    pub key: Secret,
    /// A user named the base URL: it obeys the rules for addresses that tools may reach.
    pub guarded: bool,
    pub temperature: Option<f64>,
    pub max_tokens: Option<u64>,
    pub prices: Option<Prices>,
}

impl Target {
    /// `provider:name`.
    pub fn spec(&self) -> String {
        format!("{}:{}", self.provider.as_str(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_has_one_name_and_openai_two() {
        for provider in Provider::ALL {
            assert_eq!(Provider::parse(provider.as_str()), Some(provider));
        }
        assert_eq!(Provider::parse("openai_compatible"), Some(Provider::Openai));
        assert_eq!(Provider::parse("acme"), None);
    }

    #[test]
    fn a_call_costs_what_its_tokens_cost_and_cached_ones_less() {
        let prices = Prices::from(Price { input: 0.4, cached_input: Some(0.1), output: 1.6 });
        assert_eq!(prices, Prices { input: 400_000, cached_input: 100_000, output: 1_600_000 });
        let usage = Usage { input_tokens: 1000, cached_input_tokens: 400, output_tokens: 50, cost_micros: 0 };
        assert_eq!(prices.cost(&usage), 600 * 4 / 10 + 40 + 80);
        assert_eq!(prices.cost(&Usage { input_tokens: 1, ..Usage::default() }), 1, "rounded up");
        let whole = Prices::from(Price { input: 2.0, cached_input: None, output: 0.0 });
        assert_eq!(whole.cost(&usage), 2000);
        assert_eq!(whole.cost(&Usage { cached_input_tokens: 9, ..Usage::default() }), 0, "cached without input");
    }
}
