//! What is on this machine, and the database with its clock.
use std::{fs, time::Duration};

use runmill_shared::{
    Result,
    clock::Clock,
    config::Config,
    domain::new_id,
    store::{
        db::{Db, Dedicated},
        migrate::pending,
    },
};
use runmill_worker::asr;

use super::Finding;
use crate::failure::explain;

/// Signed URLs and tokens are refused by others when clocks differ by much more.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

pub fn data_dir(config: &Config) -> Finding {
    let dir = &config.data_dir;
    let file = dir.join(format!(".doctor-{}", new_id()));
    let tried = fs::create_dir_all(dir).and_then(|()| fs::write(&file, b"x")).and_then(|()| fs::remove_file(&file));
    match tried {
        Ok(()) => Finding::good("data", format!("{} can be written", dir.display())),
        Err(error) => Finding::bad(
            "data",
            format!("{} cannot be written: {error}", dir.display()),
            "give this user the directory, or choose another with RUNMILL_DATA_DIR",
        ),
    }
}

pub async fn database(config: &Config) -> Vec<Finding> {
    let sqlite = config.database.url.is_empty();
    if sqlite && !config.data_dir.join("runmill.db").exists() {
        return vec![Finding::good("database", "SQLite; the first start makes the file")];
    }
    let (db, version) = match open(config, sqlite).await {
        Ok(opened) => opened,
        Err(error) => return vec![unreachable(sqlite, explain(&error))],
    };
    let name = if sqlite { "SQLite" } else { "Postgres" };
    let mut found = vec![Finding::good("database", format!("{name} {version}"))];
    found.push(schema(&db, sqlite).await);
    found.extend(clock(&db).await.unwrap_or_else(|e| Some(unreachable(sqlite, explain(&e)))));
    db.close().await;
    found
}

async fn open(config: &Config, sqlite: bool) -> Result<(Db, String)> {
    if !sqlite {
        // A pool would try again until its time is over, and not say why.
        drop(Dedicated::open(config).await?);
    }
    let db = Db::open(config).await?;
    let version = db.version().await?;
    Ok((db, version))
}

fn unreachable(sqlite: bool, detail: String) -> Finding {
    let mend = if sqlite {
        "see whether runmill.db in the data directory is a database and can be written"
    } else {
        "see whether Postgres runs, and whether host, user and password in RUNMILL_DATABASE_URL are right"
    };
    Finding::bad("database", detail, mend)
}

async fn schema(db: &Db, sqlite: bool) -> Finding {
    match pending(db).await {
        Ok(0) => Finding::good("schema", "up to date"),
        Ok(n) if sqlite => Finding::good("schema", format!("the next start runs {n} migrations")),
        Ok(n) => Finding::bad("schema", format!("{n} migrations have not been run"), "run: runmill migrate"),
        Err(error) => {
            Finding::bad("schema", explain(&error), "use the version of Runmill that this database belongs to, or a newer one")
        }
    }
}

async fn clock(db: &Db) -> Result<Option<Finding>> {
    let clock = Clock::real();
    let before = clock.now();
    let Some(theirs) = db.now().await? else { return Ok(None) };
    let round_trip = clock.now().since(before);
    let ours = before.after(round_trip / 2);
    let offset = theirs.since(ours).max(ours.since(theirs));
    let detail = format!("{} ms from the database's", offset.as_millis());
    Ok(Some(if offset <= CLOCK_TOLERANCE + round_trip {
        Finding::good("clock", detail)
    } else {
        Finding::bad("clock", detail, "let both machines follow a time server (chrony, systemd-timesyncd)")
    }))
}

pub async fn transcription(config: &Config) -> Vec<Finding> {
    let name = "transcription";
    let Some(path) = asr::model_path(config).filter(|_| cfg!(feature = "whisper")) else {
        let hosted = &config.transcribe.endpoint;
        return vec![match (hosted.is_empty(), cfg!(feature = "whisper")) {
            (false, _) => Finding::good(name, format!("{} at {hosted}", config.transcribe.hosted_model)),
            (true, true) => Finding::good(name, "off; a model is got with: runmill models pull whisper-base"),
            (true, false) => Finding::good(name, "off; set transcribe.endpoint (this build has no whisper in it)"),
        }];
    };
    let shown = path.display().to_string();
    let checked = tokio::task::spawn_blocking(move || asr::model_file::check(&path)).await;
    vec![match checked {
        Ok(Ok(())) => Finding::good(name, format!("{shown} is a whole model")),
        Ok(Err(error)) => {
            Finding::bad(name, explain(&error), "get it anew: runmill models pull whisper-base, or set RUNMILL_WHISPER_MODEL")
        }
        Err(error) => Finding::bad(name, error.to_string(), "get it anew: runmill models pull whisper-base"),
    }]
}
