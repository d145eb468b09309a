//! The files of a thread as tools see them: its attachments, by name. What a tool writes a client can fetch, and the other way round.
use bytes::Bytes;
use futures::stream;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::attachments::{Attachment, erase, remove};
use crate::{
    app::App,
    domain::{
        caller::Owner,
        file_name::{blob_key, safe_file_name},
        media_type,
    },
    error::{Error, ErrorKind, Result},
    store::{
        files,
        threads::{self, Advance},
    },
};

/// How many files are listed at most.
const LISTED: i64 = 1000;

/// The thread that files are in: its id, and the client's name for it.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub owner: &'a Owner,
    pub thread_id: Uuid,
    pub thread: &'a str,
}

/// By name; of several with one name the newest.
pub async fn list(app: &App, place: Place<'_>) -> Result<Vec<Attachment>> {
    files::list(&app.db, place.owner, place.thread_id, LISTED).await
}

/// A file and its content.
///
/// # Errors
/// `FILE_NOT_FOUND`; `TooLarge` when it has more than `limit` bytes.
pub async fn read(app: &App, place: Place<'_>, name: &str, limit: u64) -> Result<(Attachment, Bytes)> {
    let file = find(app, place, name).await?;
    match app.blobs.get_bytes(&file.path, limit).await {
        Ok(content) => Ok((file, content)),
        // It was replaced since: the next one is there.
        Err(e) if e.kind == ErrorKind::NotFound => {
            let file = find(app, place, name).await?;
            let content = app.blobs.get_bytes(&file.path, limit).await?;
            Ok((file, content))
        }
        Err(e) => Err(e),
    }
}

async fn find(app: &App, place: Place<'_>, name: &str) -> Result<Attachment> {
    let found = files::named(&app.db, place.owner, place.thread_id, &safe_file_name(name)).await?;
    found.ok_or_else(|| Error::not_found("FILE_NOT_FOUND", format!("the thread has no file named {name:?}")))
}

/// Stores a file under a name that becomes, or stays, unique: what had it before is replaced at once, and a crash leaves the one or the
/// other. The same `key` again changes nothing any more.
///
/// # Errors
/// `Invalid` for a name that is none or an empty file, `TooLarge`, `UNSUPPORTED_FILE_TYPE`, `THREAD_FULL`.
pub async fn write(app: &App, place: Place<'_>, name: &str, content: Bytes, key: &str) -> Result<Attachment> {
    let new = attachment(app, place, name, &content, key)?;
    let mut tx = app.db.begin().await?;
    threads::advance(&mut tx, place.thread_id, Advance::default()).await?;
    let is_new = files::insert(&mut tx, place.owner, place.thread_id, &new, app.clock.now()).await?;
    tx.commit().await?;
    if !is_new && files::was_stored(&app.db, place.owner, new.id).await? {
        return Ok(new);
    }
    let body = stream::iter([Ok(content)]);
    let stored = app.blobs.put(&new.path, &new.mime_type, body, app.config.attachments.max_bytes).await?;
    let outcome = settle(app, place, &new, &stored.sha256).await;
    if let Err(e) = &outcome
        && e.kind == ErrorKind::Conflict
    {
        remove(app, new.id, &new.path).await.unwrap_or_else(|e| left(&new, &e));
    }
    outcome?;
    Ok(new)
}

/// The row of what is to be written: its id follows from the key.
fn attachment(app: &App, place: Place<'_>, name: &str, content: &Bytes, key: &str) -> Result<Attachment> {
    let limits = &app.config.attachments;
    let safe = safe_file_name(name);
    if safe != name {
        return Err(Error::invalid("name", format!("no name for a file here; write it as {safe:?}")));
    }
    if content.is_empty() {
        return Err(Error::invalid("content", "is empty"));
    }
    if content.len() as u64 > limits.max_bytes {
        return Err(Error::too_large(format!("more than {} bytes", limits.max_bytes)));
    }
    let mime_type = media_type::detect(name, content).filter(|t| limits.types.contains(t)).ok_or_else(|| {
        let message = "files of this type are not stored; a text needs a name such as notes.txt, notes.md, data.csv or data.json";
        Error::new(ErrorKind::Malformed, "UNSUPPORTED_FILE_TYPE", message)
    })?;
    let id = id_of(place, key);
    Ok(Attachment {
        id,
        bucket: app.blobs.bucket().to_owned(),
        path: blob_key(place.owner.as_str(), place.thread, id, name),
        name: safe,
        mime_type,
        size: i64::try_from(content.len()).map_err(Error::internal)?,
    })
}

fn id_of(place: Place<'_>, key: &str) -> Uuid {
    let text = format!("{}\n{}\n{key}", place.owner.as_str(), place.thread_id);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(text)[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// The new one in, those of its name out, under the thread's lock.
async fn settle(app: &App, place: Place<'_>, new: &Attachment, sha256: &str) -> Result<()> {
    let limits = &app.config.attachments;
    let mut tx = app.db.begin().await?;
    threads::advance(&mut tx, place.thread_id, Advance::default()).await?;
    let others = files::others(&mut tx, place.owner, place.thread_id, &new.name).await?;
    if others.files >= limits.thread_files || others.bytes + new.size > limits.thread_bytes {
        let message = format!(
            "the thread's files are {} at most, of {} bytes together; delete some first",
            limits.thread_files, limits.thread_bytes
        );
        return Err(Error::conflict("THREAD_FULL", message));
    }
    let is_settled = files::settle(&mut tx, new.id, sha256).await?;
    let replaced = match is_settled {
        true => files::discard(&mut tx, place.owner, place.thread_id, &new.name, new.id).await?,
        false => Vec::new(),
    };
    tx.commit().await?;
    for old in &replaced {
        forget(app, old).await;
    }
    // The same call elsewhere was faster, or the sweeper.
    if !is_settled && !files::was_stored(&app.db, place.owner, new.id).await? {
        return Err(Error::unavailable("UPLOAD_TOO_SLOW", "the write took so long that it was given up"));
    }
    Ok(())
}

/// Takes every file of this name out of the thread; `false`: there was none.
pub async fn delete(app: &App, place: Place<'_>, name: &str) -> Result<bool> {
    let mut tx = app.db.begin().await?;
    threads::advance(&mut tx, place.thread_id, Advance::default()).await?;
    let gone = files::discard(&mut tx, place.owner, place.thread_id, &safe_file_name(name), Uuid::nil()).await?;
    tx.commit().await?;
    for old in &gone {
        forget(app, old).await;
    }
    Ok(!gone.is_empty())
}

async fn forget(app: &App, old: &Attachment) {
    erase(app, old.id, &old.path).await.unwrap_or_else(|e| left(old, &e));
}

fn left(file: &Attachment, e: &Error) {
    tracing::debug!(error = %e, path = file.path, "left to the sweeper");
}
