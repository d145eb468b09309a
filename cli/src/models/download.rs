//! A large file over HTTP: resumed where an earlier try broke off, and in its place only when its content is what was pinned.
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use indicatif::ProgressBar;
use reqwest::{Client, Response, StatusCode, header};
use runmill_shared::{Error, Result};
use tokio::time::{sleep, timeout};

use super::digest;

const TRIES: u32 = 5;
const SILENCE: Duration = Duration::from_secs(60);
const DELAY: Duration = Duration::from_millis(250);

/// What ended a try.
enum Broken {
    /// another try may go on from here
    Off(String),
    Refused(String),
    Disk(io::Error),
}

impl From<io::Error> for Broken {
    fn from(e: io::Error) -> Self {
        Self::Disk(e)
    }
}

/// # Errors
/// `Unavailable` when it cannot be had (what was read so far is kept for the next call); `Conflict` when another process is
/// getting it, or when its content is another (nothing is kept).
pub async fn fetch(url: &str, sha256: &str, target: &Path, bar: &ProgressBar) -> Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let part = target.with_file_name(format!(".{name}.{}.part", &sha256[..8]));
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::conflict("DOWNLOAD_RUNNING", "another process is downloading this model"));
        }
        Err(TryLockError::Error(e)) => return Err(e.into()),
    }
    complete(url, &mut file, bar).await?;
    file.sync_all()?;
    let found = digest(&part).await?;
    if found != sha256 {
        fs::remove_file(&part)?;
        let message = format!("{url} is not what was expected: its sha256 is {found}, not {sha256}; nothing was kept");
        return Err(Error::conflict("WRONG_CONTENT", message));
    }
    fs::rename(&part, target)?;
    // The name is part of the directory, which has its own place on disk.
    target.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())?;
    Ok(())
}

async fn complete(url: &str, file: &mut File, bar: &ProgressBar) -> Result<()> {
    let client = Client::builder().connect_timeout(Duration::from_secs(10)).build().map_err(Error::internal)?;
    let mut fruitless = 0;
    loop {
        let before = file.metadata()?.len();
        let reason = match one_try(&client, url, file, bar).await {
            Ok(()) => return Ok(()),
            Err(Broken::Disk(error)) => return Err(Error::unavailable("DISK", format!("cannot be written: {error}"))),
            Err(Broken::Refused(reason)) => return Err(failed(url, &reason)),
            Err(Broken::Off(reason)) => reason,
        };
        fruitless = if file.metadata()?.len() > before { 0 } else { fruitless + 1 };
        if fruitless == TRIES {
            return Err(failed(url, &reason));
        }
        sleep(DELAY * 2_u32.pow(fruitless)).await;
    }
}

fn failed(url: &str, reason: &str) -> Error {
    Error::unavailable("DOWNLOAD_FAILED", format!("{url}: {reason}"))
}

async fn one_try(client: &Client, url: &str, file: &mut File, bar: &ProgressBar) -> Result<(), Broken> {
    let have = file.metadata()?.len();
    let mut request = client.get(url);
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
    }
    let mut answer = request.send().await.map_err(|e| Broken::Off(e.without_url().to_string()))?;
    let start = match start(&answer, have)? {
        Start::At(start) => start,
        Start::Complete => return Ok(()),
        Start::Anew => {
            file.set_len(0)?;
            return Err(Broken::Off("it does not go on where we were".to_owned()));
        }
    };
    file.set_len(start)?;
    file.seek(SeekFrom::Start(start))?;
    bar.set_position(start);
    if let Some(length) = answer.content_length() {
        bar.set_length(start + length);
    }
    loop {
        let piece = timeout(SILENCE, answer.chunk()).await.map_err(|_| Broken::Off("nothing came any more".to_owned()))?;
        match piece.map_err(|e| Broken::Off(e.without_url().to_string()))? {
            None => return Ok(()),
            Some(piece) => {
                file.write_all(&piece)?;
                bar.inc(piece.len() as u64);
            }
        }
    }
}

enum Start {
    /// the body belongs there
    At(u64),
    Complete,
    /// the server cannot go on from what we have
    Anew,
}

fn start(answer: &Response, have: u64) -> Result<Start, Broken> {
    let range = answer.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match answer.status() {
        StatusCode::OK => Ok(Start::At(0)),
        StatusCode::PARTIAL_CONTENT if range.starts_with(&format!("bytes {have}-")) => Ok(Start::At(have)),
        StatusCode::RANGE_NOT_SATISFIABLE if range == format!("bytes */{have}") => Ok(Start::Complete),
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => Ok(Start::Anew),
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Err(Broken::Off(format!("it answers {status}")))
        }
        status => Err(Broken::Refused(format!("it answers {status}"))),
    }
}
