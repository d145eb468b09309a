//! `runmill openapi`: the documents that `openapi/` keeps, and the check that they are still true.
use std::{fs, path::PathBuf};

use clap::builder::PossibleValuesParser;
use runmill_shared::{App, Error, Result, config::Config, domain::new_id};

use crate::FAILED;

type Document = fn(&App) -> String;

/// One line a dialect.
const DOCUMENTS: &[(&str, Document)] = &[("platform", runmill_api::platform::document)];

#[derive(clap::Args)]
pub struct Args {
    #[arg(value_parser = PossibleValuesParser::new(DOCUMENTS.iter().map(|(name, _)| *name)))]
    dialect: String,
    /// Write it there instead of to standard output
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    output: Option<PathBuf>,
    /// Exit with 1 when this file says something else
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

pub async fn run(args: &Args) -> Result<u8> {
    let Some((_, document)) = DOCUMENTS.iter().find(|(name, _)| *name == args.dialect) else {
        return Err(Error::invalid("dialect", "there is no such document"));
    };
    let mut text = written(*document).await?;
    text.truncate(text.trim_end().len());
    text.push('\n');
    if let Some(file) = &args.check {
        let kept = fs::read_to_string(file).map_err(|e| unreadable(file, &e))?;
        if kept.replace("\r\n", "\n") == text {
            return Ok(0);
        }
        let (file, dialect) = (file.display(), &args.dialect);
        eprintln!("runmill: {file} is not what the code says; write it anew: runmill openapi {dialect} --output {file}");
        return Ok(FAILED);
    }
    match &args.output {
        Some(file) => fs::write(file, text).map_err(|e| unreadable(file, &e))?,
        None => print!("{text}"),
    }
    Ok(0)
}

fn unreadable(file: &std::path::Path, e: &std::io::Error) -> Error {
    Error::unavailable("FILE_UNAVAILABLE", format!("{}: {e}", file.display()))
}

/// The document does not depend on any setting, but its handlers hold an `App`: one of the defaults, in a folder that goes again.
async fn written(document: Document) -> Result<String> {
    let mut config = Config::defaults()?;
    config.data_dir = std::env::temp_dir().join(format!("runmill-openapi-{}", new_id()));
    let dir = config.data_dir.clone();
    let app = App::open(config).await;
    let text = app.as_ref().map(document);
    let text = text.map_err(|e| Error::unavailable("DOCUMENT_UNAVAILABLE", e.to_string()));
    if let Ok(app) = &app {
        app.db.close().await;
    }
    fs::remove_dir_all(dir).ok();
    text
}
