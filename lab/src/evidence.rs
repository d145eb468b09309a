//! What the database and the store hold at the end, read past the product.
use anyhow::Result;
use runmill_shared::store::db::{Db, FromRow, Row, Sql, query};
use runmill_testkit::s3_server::S3Server;
use sha2::{Digest, Sha256};

use crate::{
    check::{ApprovalRow, Blob, FireRow, GoalRow, TaskRow, Work},
    moves,
};

const GOALS: Sql = Sql::both("SELECT id, thread_id, status FROM goals");
const TASKS: Sql = Sql::both("SELECT id, goal_id, status FROM tasks");
const FIRES: Sql = Sql::both("SELECT schedule_id, scheduled_for, status, run_id FROM schedule_fires");
const APPROVALS: Sql = Sql::both("SELECT id, run_id, status FROM approvals");
const ATTACHMENTS: Sql = Sql::both("SELECT path, sha256 FROM attachments");

impl FromRow for GoalRow {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        Ok(Self { id: row.get("id")?, thread_id: row.get("thread_id")?, status: row.get("status")? })
    }
}

impl FromRow for TaskRow {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        Ok(Self { id: row.get("id")?, goal_id: row.get("goal_id")?, status: row.get("status")? })
    }
}

impl FromRow for FireRow {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        Ok(Self {
            schedule_id: row.get("schedule_id")?,
            scheduled_for: row.get("scheduled_for")?,
            status: row.get("status")?,
            run_id: row.get("run_id")?,
        })
    }
}

impl FromRow for ApprovalRow {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        Ok(Self { id: row.get("id")?, run_id: row.get("run_id")?, status: row.get("status")? })
    }
}

impl FromRow for Blob {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        Ok(Self { path: row.get("path")?, sha256: row.get("sha256")? })
    }
}

pub async fn work(db: &Db, s3: &S3Server) -> Result<Work> {
    Ok(Work {
        goals: query(GOALS).all(db).await?,
        tasks: query(TASKS).all(db).await?,
        fires: query(FIRES).all(db).await?,
        approvals: query(APPROVALS).all(db).await?,
        moves: moves::runs(db).await?,
        statuses: moves::statuses(db).await?,
        stale: moves::stale(db).await?,
        attachments: query(ATTACHMENTS).all(db).await?,
        objects: objects(s3)?,
    })
}

fn objects(s3: &S3Server) -> Result<Vec<Blob>> {
    let bucket = s3.dir.path().join(&s3.bucket);
    let object = |file: std::path::PathBuf| {
        let path = file.strip_prefix(&bucket).unwrap_or(&file).display().to_string();
        Ok(Blob { path, sha256: hex::encode(Sha256::digest(std::fs::read(&file)?)) })
    };
    // Beside the bucket the server keeps what it was about to write when it was killed.
    s3.files()?.into_iter().filter(|file| file.starts_with(&bucket)).map(object).collect()
}
