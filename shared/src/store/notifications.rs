//! What owners are told.
use super::db::{Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{new_id, notification::NewNotification},
    error::Result,
};

/// What has been told already is not told again. It has to be sent where its owner has a channel.
pub const INSERT: Sql = Sql::both(
    "INSERT INTO notifications (id, owner, kind, title, body, subject, dedupe_key, read_at, sent, created_at)
     SELECT $1, $2, $3, $4, $5, $6, $7, NULL, NOT EXISTS (SELECT 1 FROM notification_channels c WHERE c.owner = $2 AND c.enabled), $8
     WHERE TRUE ON CONFLICT (owner, dedupe_key) DO NOTHING",
);
pub const STATEMENTS: &[Sql] = &[INSERT];

pub async fn insert(tx: &mut Tx, new: &NewNotification, now: Timestamp) -> Result<()> {
    let statement = query(INSERT).bind(new_id()).bind(new.owner.clone()).bind(new.kind.as_str()).bind(new.title.clone());
    let statement = statement.bind(new.body.clone()).bind(new.subject.to_string()).bind(new.dedupe_key.clone()).bind(now);
    statement.execute(tx).await?;
    Ok(())
}
