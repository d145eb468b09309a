//! The flags that every subcommand has. What they say becomes settings; nothing is read past `shared::config`.
use std::path::PathBuf;

use runmill_shared::{
    Result,
    config::{Config, Sources},
};

#[derive(clap::Args, Default)]
pub struct Settings {
    /// A TOML file of settings, over the defaults and under the environment
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the SQLite file, attachments and models are kept
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// What is logged, as info,runmill=debug
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// One setting; may be given several times
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && key.split('.').all(|part| !part.is_empty()) => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("write section.key=value, as runs.max_queued=500".to_owned()),
    }
}

impl Settings {
    pub fn sources(&self) -> Sources {
        let mut flags = Vec::new();
        for (key, value) in &self.set {
            flags.push(("--set", key.clone(), value.clone()));
        }
        for (flag, key, value) in [("--data-dir", "data_dir", &self.data_dir), ("--log", "telemetry.log", &self.log)] {
            flags.extend(value.iter().map(|value| (flag, key.to_owned(), value.clone())));
        }
        Sources::gather(self.config.as_deref(), &flags)
    }

    pub fn load(&self) -> Result<Config> {
        self.sources().config()
    }
}
