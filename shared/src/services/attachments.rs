//! Files that belong to a thread: a row and an object that cannot come apart for good.
use std::io;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use uuid::Uuid;

use crate::{
    app::App,
    domain::{
        caller::{Caller, Owner, Scope},
        file_name::{blob_key, safe_file_name},
        media_type, new_id,
        run::check_external_id,
    },
    error::{Error, ErrorKind, Result},
    store::{
        attachments::{self, AttachmentState},
        threads::{self, Advance},
    },
};

pub use crate::store::attachments::Attachment;

/// How much of a file is looked at to tell its type.
const HEAD: usize = 8192;

/// Stores a file as it comes in. Its type is decided from content and name and must be one of `attachments.types`.
///
/// # Errors
/// `Malformed` for a type that is not taken, `Invalid` for an empty file, `TooLarge` as soon as the limit is passed.
pub async fn upload<S>(app: &App, caller: &Caller, thread: &str, file_name: &str, body: S) -> Result<Attachment>
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
{
    let owner = caller.can(Scope::Write)?;
    check_external_id("threadId", thread)?;
    let (head, body) = peek(body).await?;
    if head.is_empty() {
        return Err(Error::invalid("file", "is empty"));
    }
    let detected = media_type::detect(file_name, &head);
    let mime_type = detected
        .filter(|t| app.config.attachments.types.contains(t))
        .ok_or_else(|| Error::new(ErrorKind::Malformed, "UNSUPPORTED_FILE_TYPE", "Unsupported file type"))?;
    let new = Upload { thread, listed: true, name: file_name, mime_type, limit: app.config.attachments.max_bytes };
    store(app, owner, new, AttachmentState::Stored, body).await
}

pub struct Upload<'a> {
    pub thread: &'a str,
    pub listed: bool,
    pub name: &'a str,
    pub mime_type: String,
    pub limit: u64,
}

/// The row first, then the object, then the row says that it is there. What breaks off between is swept.
pub async fn store<S>(app: &App, owner: &Owner, new: Upload<'_>, state: AttachmentState, body: S) -> Result<Attachment>
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
{
    let now = app.clock.now();
    let id = new_id();
    let mut attachment = Attachment {
        id,
        bucket: app.blobs.bucket().to_owned(),
        path: blob_key(owner.as_str(), new.thread, id, new.name),
        name: safe_file_name(new.name),
        mime_type: new.mime_type,
        size: 0,
    };
    let mut tx = app.db.begin().await?;
    let thread_id = threads::ensure(&mut tx, new_id(), owner, new.thread, new.listed, now).await?;
    threads::advance(&mut tx, thread_id, Advance::default()).await?;
    attachments::insert(&mut tx, owner, thread_id, &attachment, now).await?;
    tx.commit().await?;
    let stored = match app.blobs.put(&attachment.path, &attachment.mime_type, body, new.limit).await {
        Ok(stored) => stored,
        Err(e) => {
            attachments::delete(&app.db, id).await.ok();
            return Err(e);
        }
    };
    attachment.size = i64::try_from(stored.size).map_err(Error::internal)?;
    if !attachments::settle(&app.db, id, state, attachment.size, &stored.sha256).await? {
        return Err(Error::unavailable("UPLOAD_TOO_SLOW", "the upload took so long that it was given up"));
    }
    Ok(attachment)
}

/// The first bytes of a body, and the body with them in front again.
async fn peek<S>(mut body: S) -> Result<(Bytes, impl Stream<Item = io::Result<Bytes>> + Send + Unpin)>
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
{
    let mut head = BytesMut::new();
    while head.len() < HEAD {
        match body.next().await {
            Some(Ok(chunk)) => head.extend_from_slice(&chunk),
            Some(Err(e)) => {
                return Err(e.downcast::<Error>().unwrap_or_else(|e| Error::malformed("the upload broke off").because(e)));
            }
            None => break,
        }
    }
    let head = head.freeze();
    let whole = stream::iter([Ok(head.clone())]).chain(body);
    Ok((head.slice(..head.len().min(HEAD)), whole))
}

/// A fresh URL for an object of the caller's.
///
/// # Errors
/// `Forbidden` for another bucket, `NotFound` for an object that is unknown or another's.
pub async fn signed_url(app: &App, caller: &Caller, bucket: &str, path: &str, base_url: &str) -> Result<String> {
    let owner = caller.can(Scope::Read)?;
    if bucket != app.blobs.bucket() {
        return Err(Error::forbidden("no access to this bucket"));
    }
    signed_url_of(app, owner, bucket, path, base_url).await
}

/// As `signed_url`, for an owner that is established.
pub async fn signed_url_of(app: &App, owner: &Owner, bucket: &str, path: &str, base_url: &str) -> Result<String> {
    owned(app, owner, bucket, path).await?;
    app.blobs.signed_url(path, base_url, app.clock.now(), app.config.blobs.url_lifetime).await
}

pub async fn owned(app: &App, owner: &Owner, bucket: &str, path: &str) -> Result<Attachment> {
    let found = attachments::owned(&app.db, owner, bucket, path).await?;
    found.ok_or_else(|| Error::not_found("ATTACHMENT_NOT_FOUND", "no such attachment"))
}

/// Which of these (bucket, path) are stored and the owner's, in one statement; none costs none.
pub async fn owned_among(app: &App, owner: &Owner, named: &[(&str, &str)]) -> Result<Vec<Attachment>> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    attachments::owned_among(&app.db, owner, named).await
}

/// The row of an object whose signed URL was presented: its name and type.
pub async fn presented(app: &App, path: &str, expires: i64, signature: &str) -> Result<Attachment> {
    app.blobs.verify(path, expires, signature, app.clock.now())?;
    let found = attachments::by_path(&app.db, app.blobs.bucket(), path).await?;
    found.ok_or_else(|| Error::not_found("ATTACHMENT_NOT_FOUND", "no such attachment"))
}

/// Removes an object and its row. What it does not come to is left to the sweeper, and at once.
pub async fn remove(app: &App, id: Uuid, path: &str) -> Result<()> {
    attachments::give_up(&app.db, id).await?;
    erase(app, id, path).await
}

/// As `remove`, of what has been given up already.
pub(super) async fn erase(app: &App, id: Uuid, path: &str) -> Result<()> {
    app.blobs.delete(path).await?;
    attachments::delete(&app.db, id).await
}

/// Sweeps orphans: rows whose object never came, temporary objects past their time, and objects that have no row.
pub async fn sweep(app: &App) -> Result<usize> {
    let now = app.clock.now();
    let (age, batch) = (app.config.blobs.orphan_age, app.config.worker.batch);
    let longest_work = app.config.runs.queue_timeout + app.config.runs.run_timeout;
    let mut swept = 0;
    for row in attachments::unsettled(&app.db, now.before(age), now.before(longest_work), batch).await? {
        erase(app, row.id, &row.path).await?;
        swept += 1;
    }
    let mut objects = app.blobs.list("").chunks(usize::try_from(batch).unwrap_or(500));
    while let Some(page) = objects.next().await {
        let mut old = Vec::new();
        for object in page {
            let object = object?;
            // What is still being written has no row that says so only for a moment, and is young.
            if object.modified < now.before(age) {
                old.push(object.key);
            }
        }
        if old.is_empty() {
            continue;
        }
        let known = attachments::known(&app.db, app.blobs.bucket(), &old).await?;
        for key in old.iter().filter(|key| !known.contains(key)) {
            app.blobs.delete(key).await?;
            swept += 1;
        }
    }
    Ok(swept)
}
