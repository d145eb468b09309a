//! Objects that are too large for a row: files below the data directory, or any S3 bucket. The database row is the
//! truth; an object without a row is an orphan, and `list` is how it is found.
mod disk;
mod key;
mod s3;
mod s3_error;
mod s3_upload;
mod sign;

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use sha2::{Digest, Sha256};

pub use self::{
    disk::DiskBlobs,
    s3::{S3Blobs, sdk_config},
};
use crate::{
    clock::Timestamp,
    config::Config,
    domain::new_id,
    error::{Error, ErrorKind, Result},
};

const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub enum Blobs {
    Disk(DiskBlobs),
    S3(S3Blobs),
}

/// What `put` has written: its length in bytes and its SHA-256 in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub size: u64,
    pub sha256: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    /// In bytes.
    pub size: u64,
    pub modified: Timestamp,
}

/// An object's content: `size` bytes in all. Reading fails with an I/O error when the store goes away in between.
pub struct BlobStream {
    pub size: u64,
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

impl Blobs {
    /// S3 when a bucket is configured, else `data_dir/blobs` with URLs signed by a key derived from `signing_key`.
    pub async fn open(config: &Config, signing_key: &[u8]) -> Result<Self> {
        if config.blobs.bucket.is_empty() {
            return DiskBlobs::open(&config.data_dir.join("blobs"), signing_key, config.blobs.orphan_age).await.map(Self::Disk);
        }
        S3Blobs::open(&config.blobs).await.map(Self::S3)
    }

    pub fn bucket(&self) -> &str {
        match self {
            Self::Disk(_) => "attachments",
            Self::S3(s3) => s3.bucket(),
        }
    }

    /// Streams `body` into storage and hashes it on the way. More than `limit` bytes are `TooLarge` as soon as they are
    /// read; a body that fails is `Malformed`. After an error nothing is left behind, and a dropped future never leaves
    /// part of an object; one that had this key before stays as it was.
    pub async fn put(
        &self,
        key: &str,
        content_type: &str,
        body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
        limit: u64,
    ) -> Result<Stored> {
        key::check(key)?;
        let body = Metered { body, hash: Sha256::new(), size: 0, limit };
        match self {
            Self::Disk(disk) => disk.put(key, body).await,
            Self::S3(s3) => s3.put(key, content_type, body).await,
        }
    }

    /// `NotFound` when there is no such object.
    pub async fn get(&self, key: &str) -> Result<BlobStream> {
        key::check(key).map_err(|_| missing())?;
        match self {
            Self::Disk(disk) => disk.get(key).await,
            Self::S3(s3) => s3.get(key).await,
        }
    }

    /// The whole object; one of more than `limit` bytes is `TooLarge`.
    pub async fn get_bytes(&self, key: &str, limit: u64) -> Result<Bytes> {
        let mut blob = self.get(key).await?;
        if blob.size > limit {
            return Err(too_large(limit));
        }
        let mut all = BytesMut::new();
        while let Some(chunk) = blob.body.try_next().await.map_err(|e| unavailable("the blob store broke off").because(e))? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// An object that is not there is no error.
    pub async fn delete(&self, key: &str) -> Result<()> {
        if key::check(key).is_err() {
            return Ok(());
        }
        match self {
            Self::Disk(disk) => disk.delete(key).await,
            Self::S3(s3) => s3.delete(key).await,
        }
    }

    /// Every object whose key starts with `prefix`, in no order that may be relied on; read page by page.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<Object>> {
        match self {
            Self::Disk(disk) => disk.list(prefix).boxed(),
            Self::S3(s3) => s3.list(prefix).boxed(),
        }
    }

    /// A URL that anybody may GET until it expires (to the second, S3: at most 7 days). Disk: `{base_url}/blobs/…`, which
    /// is for us to serve; S3: presigned for the public endpoint, without asking the server.
    pub async fn signed_url(&self, key: &str, base_url: &str, now: Timestamp, lifetime: Duration) -> Result<String> {
        key::check(key)?;
        match self {
            Self::Disk(disk) => Ok(disk.signer().url(key, base_url, now, lifetime)),
            Self::S3(s3) => s3.signed_url(key, now, lifetime).await,
        }
    }

    /// Whether `signed_url` of the disk store gave out this key, `expires` (Unix seconds) and signature, and the time has
    /// not passed; `Forbidden` otherwise. S3 checks its own: here they are `NotFound`.
    pub fn verify(&self, key: &str, expires: i64, signature: &str, now: Timestamp) -> Result<()> {
        match self {
            Self::Disk(disk) => disk.signer().verify(key, expires, signature, now),
            Self::S3(_) => Err(missing()),
        }
    }

    /// Writes, reads and deletes a small object: `Unavailable`, with what is wrong, when that does not work within 10 s.
    pub async fn check(&self) -> Result<()> {
        tokio::time::timeout(CHECK_TIMEOUT, self.write_read_delete())
            .await
            .map_err(|_| unavailable("the blob store does not answer in time"))?
    }

    async fn write_read_delete(&self) -> Result<()> {
        if let Self::S3(s3) = self {
            s3.check_bucket().await?;
        }
        let key = format!("check/{}", new_id());
        let content = Bytes::from(key.clone());
        let body = futures::stream::iter([Ok(content.clone())]);
        self.put(&key, "text/plain", body, 1024).await?;
        let read = self.get_bytes(&key, 1024).await;
        self.delete(&key).await?;
        if read? == content { Ok(()) } else { Err(unavailable("the blob store does not return what was written")) }
    }
}

/// A body that is counted, hashed and cut off while it is read.
struct Metered<S> {
    body: S,
    hash: Sha256,
    size: u64,
    limit: u64,
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Metered<S> {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(chunk) = self.body.try_next().await.map_err(broken_off)? else {
            return Ok(None);
        };
        self.size += chunk.len() as u64;
        if self.size > self.limit {
            return Err(too_large(self.limit));
        }
        self.hash.update(&chunk);
        Ok(Some(chunk))
    }

    fn stored(self) -> Stored {
        Stored { size: self.size, sha256: hex::encode(self.hash.finalize()) }
    }
}

/// The body's own error where it is one of ours, else that of an upload that ended too early.
fn broken_off(e: io::Error) -> Error {
    e.downcast::<Error>().unwrap_or_else(|e| {
        Error::new(ErrorKind::Malformed, "UPLOAD_BROKEN_OFF", "the upload ended before it was complete").because(e)
    })
}

fn too_large(limit: u64) -> Error {
    Error::too_large(format!("more than {limit} bytes"))
}

fn missing() -> Error {
    Error::not_found("BLOB_NOT_FOUND", "no such object")
}

fn unavailable(message: &'static str) -> Error {
    Error::unavailable("BLOBS_UNAVAILABLE", message)
}
