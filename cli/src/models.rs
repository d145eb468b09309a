//! `runmill models`: gets the models that are too large for a binary.
mod download;

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use runmill_shared::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};

use crate::settings::Settings;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Download a model into the data directory, check it, and put it where transcription looks for it
    Pull(Pull),
}

#[derive(clap::Args)]
pub struct Pull {
    /// whisper-tiny, whisper-base, whisper-small or whisper-large-v3-turbo; another name needs --url and --sha256
    name: String,
    /// Get it from there, as from a mirror of your own
    #[arg(long)]
    url: Option<String>,
    /// What its content must be
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    sha256: Option<String>,
}

struct Known {
    name: &'static str,
    /// megabytes, for people
    size: u32,
    sha256: &'static str,
}

/// Where the whisper.cpp project publishes its models.
const PUBLISHED: &str = "https://huggingface.co/ggerganov/whisper.cpp/resolve/main";
const KNOWN: &[Known] = &[
    Known { name: "tiny", size: 78, sha256: "be07e048e1e599ad46341c8d2a135645097a538221678b7acdd1b1919c6e1b21" },
    Known { name: "base", size: 148, sha256: "60ed5bc3dd14eea856493d334349b405782ddcaf0028d4b5df4088345fba2efe" },
    Known { name: "small", size: 488, sha256: "1be3a9b2063867b937e64e2ec7483364a79917e157fa98c5d94b5c1fffea987b" },
    Known { name: "large-v3-turbo", size: 1625, sha256: "1fc70f774d38eb169993ac391eea357ef47c88757ef72ee5943879b7e8e2bc69" },
];

fn sha256(text: &str) -> Result<String, String> {
    let bytes = hex::decode(text).map_err(|e| e.to_string())?;
    if bytes.len() == 32 { Ok(text.to_ascii_lowercase()) } else { Err("64 hex digits are expected".to_owned()) }
}

pub async fn run(settings: &Settings, command: Command) -> Result<u8> {
    let Command::Pull(pull) = command;
    let data_dir: PathBuf = settings.sources().get("data_dir")?;
    let (file, url, sha256) = source(&pull)?;
    let dir = data_dir.join("models");
    std::fs::create_dir_all(&dir)
        .map_err(|e| Error::unavailable("DATA_DIR_UNWRITABLE", format!("cannot write to {}: {e}", dir.display())))?;
    let target = dir.join(&file);
    if target.exists() && digest(&target).await? == sha256 {
        println!("{} is there already", target.display());
        return Ok(0);
    }
    let bar = progress();
    let fetched = download::fetch(&url, &sha256, &target, &bar).await;
    bar.finish_and_clear();
    fetched?;
    println!("{} is there, and its sha256 is as expected", target.display());
    if file != "ggml-base.bin" {
        println!("use it: RUNMILL_WHISPER_MODEL={}", target.display());
    }
    Ok(0)
}

/// (file name, URL, sha256). Nothing is ever downloaded whose content is not known beforehand.
fn source(pull: &Pull) -> Result<(String, String, String)> {
    let name = pull.name.strip_prefix("whisper-").unwrap_or(&pull.name);
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
        return Err(usage("a model's name has letters, digits, '-', '.' and '_'".to_owned()));
    }
    let known = KNOWN.iter().find(|known| known.name == name);
    let file = format!("ggml-{name}.bin");
    let url = pull.url.clone().or_else(|| known.map(|_| format!("{PUBLISHED}/{file}")));
    let pinned = pull.sha256.clone().or_else(|| known.map(|known| known.sha256.to_owned()));
    match (url, pinned) {
        (Some(url), Some(sha256)) => Ok((file, url, sha256)),
        _ => {
            let all: Vec<_> = KNOWN.iter().map(|known| format!("whisper-{} ({} MB)", known.name, known.size)).collect();
            Err(usage(format!("known models are {}; any other needs --url and --sha256", all.join(", "))))
        }
    }
}

fn usage(message: String) -> Error {
    Error::new(ErrorKind::Invalid, "USAGE", message)
}

fn progress() -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    match ProgressStyle::with_template("{bar:32} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} to go") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// In lower-case hex.
pub async fn digest(file: &Path) -> Result<String> {
    let file = file.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut hash = Sha256::new();
        let (mut file, mut piece) = (File::open(file)?, vec![0; 1 << 20]);
        loop {
            match file.read(&mut piece)? {
                0 => break,
                length => hash.update(&piece[..length]),
            }
        }
        Ok::<_, io::Error>(hex::encode(hash.finalize()))
    });
    Ok(read.await.map_err(Error::internal)??)
}
