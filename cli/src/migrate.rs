//! `runmill migrate`: the schema, as a job before the processes of a new version start.
use runmill_shared::{
    Result,
    store::{
        db::Db,
        migrate::{migrate, pending},
    },
    telemetry,
};

use crate::{FAILED, lock, settings::Settings};

#[derive(clap::Args)]
pub struct Args {
    /// Change nothing; exit with 1 when migrations are still to run
    #[arg(long)]
    check: bool,
}

pub async fn run(settings: &Settings, args: &Args) -> Result<u8> {
    let config = settings.load()?;
    let _telemetry = telemetry::init(&config)?;
    // A SQLite file belongs to the process that serves it.
    let _lock = if config.database.url.is_empty() && !args.check { Some(lock::take(&config.data_dir)?) } else { None };
    let db = Db::open(&config).await?;
    db.ping().await?;
    let count = pending(&db).await?;
    let code = match (count, args.check) {
        (0, _) => {
            println!("the schema is up to date");
            0
        }
        (_, true) => {
            println!("migrations still to run: {count}");
            FAILED
        }
        (_, false) => {
            migrate(&db).await?;
            println!("migrations run: {count}");
            0
        }
    };
    db.close().await;
    Ok(code)
}
