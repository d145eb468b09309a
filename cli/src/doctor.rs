//! `runmill doctor`: asks everything that Runmill depends on, at once, and says how to mend what is wrong.
mod addresses;
mod checks;
mod external;

use std::{
    io::{Write, stdout},
    net::SocketAddr,
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use runmill_shared::{Error, Result, config::Config};
use serde::Serialize;
use tokio::time::timeout;

pub use self::addresses::reachable;
use crate::{FAILED, failure, settings::Settings};

/// What has not answered by then is taken for broken.
const LIMIT: Duration = Duration::from_secs(10);
/// A model file of a gigabyte is read to its end.
const FILE_LIMIT: Duration = Duration::from_secs(120);
const PROBE: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub struct Args {
    /// Only whether the server of these settings lives: for health checks of containers
    #[arg(long)]
    live: bool,
    /// One JSON list instead of lines
    #[arg(long, conflicts_with = "live")]
    json: bool,
}

/// What one check found.
#[derive(Debug, Serialize)]
pub struct Finding {
    name: &'static str,
    ok: bool,
    /// what was found, or what is wrong
    detail: String,
    /// what to do about it
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, ok: true, detail: detail.into(), mend: None }
    }

    fn bad(name: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, ok: false, detail: detail.into(), mend: Some(mend.into()) }
    }
}

pub async fn run(settings: &Settings, args: &Args) -> Result<u8> {
    if args.live {
        return live(settings.sources().get("listen.ops")?).await;
    }
    let findings = match settings.load() {
        Ok(config) => {
            let mut all = vec![Finding::good("settings", "all can be used; `runmill config` lists them")];
            all.extend(every_check(&config).await);
            all
        }
        Err(error) => {
            vec![Finding::bad("settings", failure::explain(&error), "correct them; `runmill config` says where each comes from")]
        }
    };
    let mut out = stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?;
    } else {
        print(&mut out, &findings)?;
    }
    Ok(if findings.iter().all(|f| f.ok) { 0 } else { FAILED })
}

fn print(out: &mut impl Write, findings: &[Finding]) -> Result<()> {
    for finding in findings {
        writeln!(out, "{} {:13}  {}", if finding.ok { '✓' } else { '✗' }, finding.name, finding.detail)?;
        if let Some(mend) = &finding.mend {
            writeln!(out, "  {:13}  → {mend}", "")?;
        }
    }
    Ok(())
}

async fn every_check(config: &Config) -> Vec<Finding> {
    let data_dir = checks::data_dir(config);
    // Others open files in it; they would say the same thing less well.
    if !data_dir.ok {
        return vec![data_dir];
    }
    let checks: Vec<(&'static str, Duration, BoxFuture<'_, Vec<Finding>>)> = vec![
        ("database", LIMIT, Box::pin(checks::database(config))),
        ("redis", LIMIT, Box::pin(external::redis(config))),
        ("attachments", LIMIT + PROBE, Box::pin(external::blobs(config))),
        ("model", LIMIT, Box::pin(external::model(config))),
        ("transcription", FILE_LIMIT, Box::pin(checks::transcription(config))),
        ("addresses", LIMIT, Box::pin(addresses::check(config))),
    ];
    let asked = checks.into_iter().map(|(name, limit, check)| async move {
        timeout(limit, check).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {} s", limit.as_secs());
            vec![Finding::bad(name, detail, "see whether it runs, and whether a firewall is between")]
        })
    });
    let found = join_all(asked).await;
    std::iter::once(data_dir).chain(found.into_iter().flatten()).collect()
}

/// Exit code 0 when `/livez` of the ops listener says that the process lives.
async fn live(ops: SocketAddr) -> Result<u8> {
    let url = format!("http://{}/livez", addresses::reachable(ops));
    match probe(&url).await {
        Ok(answer) if answer.status().is_success() => Ok(0),
        Ok(answer) => {
            eprintln!("runmill: {url} answered {}", answer.status());
            Ok(FAILED)
        }
        Err(error) => {
            eprintln!(
                "runmill: {}",
                failure::explain(&Error::unavailable("NOT_LIVE", format!("{url} does not answer")).because(error))
            );
            Ok(FAILED)
        }
    }
}

/// A GET past any proxy, for addresses of this machine.
async fn probe(url: &str) -> reqwest::Result<reqwest::Response> {
    reqwest::Client::builder().no_proxy().timeout(PROBE).build()?.get(url).send().await
}
