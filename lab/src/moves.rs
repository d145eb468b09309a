//! The history of the rows themselves. The laboratory's database is its own: triggers keep every change of a run's row that the protocol
//! speaks of, and every status of a task and an approval, in the order in which they were made; and each event and step that was written
//! with a fence that its run does not have.
use anyhow::Result;
use runmill_shared::{
    domain::run::RunState,
    store::db::{Db, FromRow, Row as DbRow, Sql, query},
};
use runmill_testkit::protocol::{Counts, Form, Row};
use serde_json::Value;

use crate::check::{RunMove, StatusMove};

const INSTALL: [Sql; 12] = [
    Sql::both("CREATE TABLE lab_moves (n BIGSERIAL PRIMARY KEY, run_id UUID NOT NULL, before TEXT, after TEXT NOT NULL)"),
    Sql::both(
        "CREATE TABLE lab_statuses (n BIGSERIAL PRIMARY KEY, what TEXT NOT NULL, id UUID NOT NULL, before TEXT, after TEXT NOT NULL)",
    ),
    Sql::both(
        "CREATE FUNCTION lab_row(r runs) RETURNS TEXT LANGUAGE sql IMMUTABLE AS $$
             SELECT json_build_object('state', r.state, 'ready', r.ready, 'owned', r.lease_owner IS NOT NULL, 'paused', r.paused,
                 'held', r.state = 'waiting' AND r.waiting_for LIKE '%\"reason\":\"paused\"%', 'fence', r.fence,
                 'wake_seq', r.wake_seq, 'attempt', r.attempt, 'crashes', r.crashes)::TEXT $$",
    ),
    Sql::both(
        "CREATE FUNCTION lab_move() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE old_row TEXT; BEGIN
             IF TG_OP = 'UPDATE' THEN
                 old_row := lab_row(OLD);
                 IF old_row = lab_row(NEW) THEN RETURN NULL; END IF;
             END IF;
             INSERT INTO lab_moves (run_id, before, after) VALUES (NEW.id, old_row, lab_row(NEW));
             RETURN NULL; END $$",
    ),
    Sql::both(
        "CREATE FUNCTION lab_status() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE old_status TEXT; BEGIN
             IF TG_OP = 'UPDATE' THEN
                 old_status := OLD.status;
                 IF old_status = NEW.status THEN RETURN NULL; END IF;
             END IF;
             INSERT INTO lab_statuses (what, id, before, after) VALUES (TG_TABLE_NAME, NEW.id, old_status, NEW.status);
             RETURN NULL; END $$",
    ),
    Sql::both("CREATE TRIGGER lab AFTER INSERT OR UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION lab_move()"),
    Sql::both("CREATE TRIGGER lab AFTER INSERT OR UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION lab_status()"),
    Sql::both("CREATE TRIGGER lab AFTER INSERT OR UPDATE ON approvals FOR EACH ROW EXECUTE FUNCTION lab_status()"),
    Sql::both("CREATE TABLE lab_stale (n BIGSERIAL PRIMARY KEY, what TEXT NOT NULL)"),
    // Parking and ending raise the fence in the transaction that writes what was said before.
    Sql::both(
        "CREATE FUNCTION lab_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.fence > 0 AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = NEW.run_id AND (r.fence = NEW.fence
                     OR r.fence = NEW.fence + 1 AND r.xmin = pg_current_xact_id()::xid)) THEN
                 INSERT INTO lab_stale (what) VALUES (TG_TABLE_NAME || ' ' || row_to_json(NEW)::TEXT);
             END IF;
             RETURN NULL; END $$",
    ),
    Sql::both("CREATE TRIGGER lab AFTER INSERT OR UPDATE ON run_steps FOR EACH ROW EXECUTE FUNCTION lab_write()"),
    Sql::both("CREATE TRIGGER lab AFTER INSERT ON run_events FOR EACH ROW EXECUTE FUNCTION lab_write()"),
];
const MOVES: Sql = Sql::both("SELECT run_id, before, after FROM lab_moves ORDER BY n");
const STATUSES: Sql = Sql::both("SELECT what, id, before, after FROM lab_statuses ORDER BY n");

const STALE: Sql = Sql::both("SELECT what FROM lab_stale ORDER BY n");

/// Before the first run.
pub async fn install(db: &Db) -> Result<()> {
    for statement in INSTALL {
        query(statement).all::<()>(db).await?;
    }
    Ok(())
}

pub async fn runs(db: &Db) -> Result<Vec<RunMove>> {
    Ok(query(MOVES).all(db).await?)
}

pub async fn statuses(db: &Db) -> Result<Vec<StatusMove>> {
    Ok(query(STATUSES).all(db).await?)
}

pub async fn stale(db: &Db) -> Result<Vec<String>> {
    let all: Vec<Stale> = query(STALE).all(db).await?;
    Ok(all.into_iter().map(|Stale(what)| what).collect())
}

struct Stale(String);

impl FromRow for Stale {
    fn from_row(row: &DbRow) -> runmill_shared::Result<Self> {
        Ok(Self(row.get("what")?))
    }
}

impl FromRow for RunMove {
    fn from_row(row: &DbRow) -> runmill_shared::Result<Self> {
        let before: Option<Value> = row.opt_json("before")?;
        Ok(Self { run_id: row.get("run_id")?, before: before.as_ref().map(parse), after: parse(&row.json("after")?) })
    }
}

impl FromRow for StatusMove {
    fn from_row(row: &DbRow) -> runmill_shared::Result<Self> {
        Ok(Self { what: row.get("what")?, id: row.get("id")?, before: row.get("before")?, after: row.get("after")? })
    }
}

/// A state that is unknown reads as one that no row may come back from.
fn parse(row: &Value) -> Row {
    let (is, count) = (|name: &str| row[name] == Value::Bool(true), |name: &str| row[name].as_i64().unwrap_or(-1));
    let state = row["state"].as_str().and_then(RunState::parse).unwrap_or(RunState::Cancelled);
    Row {
        form: Form { state, ready: is("ready"), owned: is("owned"), paused: is("paused"), held: is("held") },
        counts: Counts {
            fence: count("fence"),
            wake_seq: count("wake_seq"),
            attempt: count("attempt"),
            crashes: count("crashes"),
        },
    }
}
