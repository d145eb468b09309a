//! `runmill openapi`: the documents that `openapi/` keeps, and the check that they are still true.
use std::{fs, path::PathBuf};

use clap::builder::PossibleValuesParser;
use runmill_shared::{Error, Result};

use crate::FAILED;

#[derive(clap::Args)]
pub struct Args {
    #[arg(value_parser = PossibleValuesParser::new(runmill_api::DIALECTS))]
    dialect: String,
    /// Write it there instead of to standard output
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    output: Option<PathBuf>,
    /// Exit with 1 when this file says something else
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<u8> {
    let document = runmill_api::openapi(&args.dialect);
    let text = document.ok_or_else(|| Error::not_found("NO_SUCH_DOCUMENT", "there is no such document"))?;
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
