//! `runmill config`: what is in force, and who said so.
use std::io::{Write, stdout};

use runmill_shared::Result;

use crate::settings::Settings;

pub fn run(settings: &Settings) -> Result<u8> {
    let sources = settings.sources();
    let all = sources.list(&sources.config()?)?;
    let width = |of: fn(&runmill_shared::config::Setting) -> &str| all.iter().map(|s| of(s).chars().count()).max().unwrap_or(0);
    let (keys, values) = (width(|s| &s.key), width(|s| &s.value).min(60));
    let mut out = stdout().lock();
    for setting in &all {
        writeln!(out, "{:keys$}  {:values$}  {}", setting.key, setting.value, setting.from)?;
    }
    Ok(0)
}
