//! Files below one directory. A write goes to `.tmp`, is synced and then renamed, so that an object is whole or not there.
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_stream::try_stream;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::{BlobStream, Metered, Object, Stored, key, missing, sign::Signer, unavailable};
use crate::{
    clock::{Clock, Timestamp},
    domain::new_id,
    error::{Error, Result},
};

const READ_BYTES: usize = 64 * 1024;
/// How often a rename is tried again when a delete has just taken the emptied directory away.
const RENAME_TRIES: usize = 16;

#[derive(Clone)]
pub struct DiskBlobs {
    root: Arc<Path>,
    signer: Signer,
}

impl DiskBlobs {
    /// Makes the directory. What a crash left in `.tmp` is removed once it is older than `stale`.
    pub async fn open(root: &Path, signing_key: &[u8], stale: Duration) -> Result<Self> {
        let root = root.to_owned();
        let root = blocking(move || prepare(&root, stale)).await.map_err(failed)?;
        Ok(Self { root: root.into(), signer: Signer::new(signing_key)? })
    }

    pub(super) fn signer(&self) -> &Signer {
        &self.signer
    }

    pub(super) async fn put<S>(&self, key: &str, mut body: Metered<S>) -> Result<Stored>
    where
        S: Stream<Item = io::Result<Bytes>> + Unpin,
    {
        let temp = Temp(self.root.join(".tmp").join(new_id().to_string()));
        let mut file = tokio::fs::File::options().write(true).create_new(true).open(&temp.0).await.map_err(failed)?;
        while let Some(chunk) = body.next().await? {
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        let (root, parts) = (self.root.clone(), key::file_parts(key));
        blocking(move || commit(&root, &parts, &temp)).await.map_err(failed)?;
        Ok(body.stored())
    }

    pub(super) async fn get(&self, key: &str) -> Result<BlobStream> {
        let (root, parts) = (self.root.clone(), key::file_parts(key));
        let (file, size) =
            blocking(move || open_file(&root, &parts)).await.map_err(|e| if is_absent(&e) { missing() } else { failed(e) })?;
        let file = tokio::fs::File::from_std(file).take(size);
        Ok(BlobStream { size, body: ReaderStream::with_capacity(file, READ_BYTES).boxed() })
    }

    pub(super) async fn delete(&self, key: &str) -> Result<()> {
        let (root, parts) = (self.root.clone(), key::file_parts(key));
        match blocking(move || remove(&root, &parts)).await {
            Err(e) if !is_absent(&e) => Err(failed(e)),
            _ => Ok(()),
        }
    }

    /// One directory at a time.
    pub(super) fn list(&self, prefix: &str) -> impl Stream<Item = Result<Object>> + Send + use<> {
        let (root, prefix) = (self.root.clone(), prefix.to_owned());
        try_stream! {
            let mut dirs = vec![root.to_path_buf()];
            while let Some(dir) = dirs.pop() {
                let (root, prefix) = (root.clone(), prefix.clone());
                let (objects, below) = blocking(move || read_dir(&root, &dir, &prefix)).await.map_err(failed)?;
                dirs.extend(below);
                for object in objects {
                    yield object;
                }
            }
        }
    }
}

/// A file that goes when its put does not come to an end, for whatever reason.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn prepare(root: &Path, stale: Duration) -> io::Result<PathBuf> {
    let temp = root.join(".tmp");
    fs::create_dir_all(&temp)?;
    // Files carry this machine's wall clock, so that is the one to compare with.
    let oldest = Clock::real().now().before(stale);
    for entry in fs::read_dir(&temp)? {
        let entry = entry?;
        if entry.metadata().and_then(|m| m.modified()).is_ok_and(|modified| timestamp(modified) < oldest) {
            let _ = fs::remove_file(entry.path());
        }
    }
    root.canonicalize()
}

/// The directory of the last part. Each on the way is a real directory: a link that somebody planted leads nowhere.
fn directory(root: &Path, parts: &[String], create: bool) -> io::Result<PathBuf> {
    let mut dir = root.to_path_buf();
    for part in &parts[..parts.len() - 1] {
        let parent = dir.clone();
        dir.push(part);
        match fs::symlink_metadata(&dir) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound && create => match fs::create_dir(&dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => sync(&parent)?,
            },
            Err(e) => return Err(e),
        }
    }
    Ok(dir)
}

fn commit(root: &Path, parts: &[String], temp: &Temp) -> io::Result<()> {
    let mut tries = 0;
    loop {
        let renamed =
            directory(root, parts, true).and_then(|dir| fs::rename(&temp.0, dir.join(&parts[parts.len() - 1])).map(|()| dir));
        match renamed {
            Err(e) if e.kind() == io::ErrorKind::NotFound && tries < RENAME_TRIES => tries += 1,
            Err(e) => return Err(e),
            // Deleted again at once, and the directory with it: nothing is left to sync.
            Ok(dir) => return sync(&dir).or_else(|e| if is_absent(&e) { Ok(()) } else { Err(e) }),
        }
    }
}

fn open_file(root: &Path, parts: &[String]) -> io::Result<(fs::File, u64)> {
    let path = directory(root, parts, false)?.join(&parts[parts.len() - 1]);
    if !fs::symlink_metadata(&path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = fs::File::open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn remove(root: &Path, parts: &[String]) -> io::Result<()> {
    let mut dir = directory(root, parts, false)?;
    fs::remove_file(dir.join(&parts[parts.len() - 1]))?;
    // Emptied directories go too; the first that is not empty ends it.
    while dir != root && fs::remove_dir(&dir).is_ok() {
        dir.pop();
    }
    Ok(())
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

fn read_dir(root: &Path, dir: &Path, prefix: &str) -> io::Result<(Vec<Object>, Vec<PathBuf>)> {
    let (mut objects, mut below) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(dir) {
        Err(e) if is_absent(&e) => return Ok((objects, below)),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        // Links are not followed, and what has just been deleted is passed over.
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        let key = path.strip_prefix(root).ok().and_then(key::from_file);
        if found.is_dir() {
            // A long name's directory may end within a character, and then spells no key.
            let leads_there = key.is_none_or(|key| key.starts_with(prefix) || prefix.starts_with(&key));
            if leads_there && !entry.file_name().as_encoded_bytes().starts_with(b".") {
                below.push(path);
            }
        } else if let Some(key) = key.filter(|key| found.is_file() && key.starts_with(prefix)) {
            objects.push(Object { key, size: found.len(), modified: timestamp(found.modified()?) });
        }
    }
    Ok((objects, below))
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::default().after(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn is_absent(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A full or read-only disk is somebody's to mend; all else is a fault of ours.
fn failed(e: io::Error) -> Error {
    use io::ErrorKind as K;
    match e.kind() {
        K::StorageFull | K::QuotaExceeded => unavailable("the disk of the blob store is full").because(e),
        K::ReadOnlyFilesystem | K::PermissionDenied => unavailable("the blob store cannot be written or read").because(e),
        _ => e.into(),
    }
}
