//! What models were asked and what it cost: sums over the journals of an owner's runs. A step that a retry took over from the run
//! before it (its fence is 0) was paid there.
use super::db::{Db, FromRow, Row, Sql, query};
use crate::{clock::Timestamp, domain::caller::Owner, error::Result};

/// One group; `key` is empty where the group has no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    pub key: String,
    pub runs: i64,
    pub calls: i64,
    pub input_tokens: i64,
    pub cached_input_tokens: i64,
    pub output_tokens: i64,
    pub cost_micros: i64,
}

impl FromRow for Sum {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            key: row.get("key")?,
            runs: row.get("runs")?,
            calls: row.get("calls")?,
            input_tokens: row.get("input_tokens")?,
            cached_input_tokens: row.get("cached_input_tokens")?,
            output_tokens: row.get("output_tokens")?,
            cost_micros: row.get("cost_micros")?,
        })
    }
}

macro_rules! postgres {
    ($key:literal) => {
        concat!(
            "SELECT ",
            $key,
            " AS key, COUNT(DISTINCT c.run_id) AS runs, COUNT(*) AS calls,
                COALESCE(SUM((c.usage ->> 'input_tokens')::BIGINT), 0)::BIGINT AS input_tokens,
                COALESCE(SUM((c.usage ->> 'cached_input_tokens')::BIGINT), 0)::BIGINT AS cached_input_tokens,
                COALESCE(SUM((c.usage ->> 'output_tokens')::BIGINT), 0)::BIGINT AS output_tokens,
                COALESCE(SUM((c.usage ->> 'cost_micros')::BIGINT), 0)::BIGINT AS cost_micros
             FROM (SELECT s.run_id, s.name, r.agent_id, r.created_at, s.result::json AS result, s.result::json -> 'usage' AS usage
                   FROM runs r JOIN run_steps s ON s.run_id = r.id
                   WHERE r.owner = $1 AND r.created_at >= $2 AND r.created_at < $3
                     AND s.kind = 'model' AND s.status = 'finished' AND s.fence > 0) AS c
             GROUP BY 1 ORDER BY 1"
        )
    };
}

macro_rules! sqlite {
    ($key:literal) => {
        concat!(
            "SELECT ",
            $key,
            " AS key, COUNT(DISTINCT c.run_id) AS runs, COUNT(*) AS calls,
                COALESCE(SUM(c.result ->> '$.usage.input_tokens'), 0) AS input_tokens,
                COALESCE(SUM(c.result ->> '$.usage.cached_input_tokens'), 0) AS cached_input_tokens,
                COALESCE(SUM(c.result ->> '$.usage.output_tokens'), 0) AS output_tokens,
                COALESCE(SUM(c.result ->> '$.usage.cost_micros'), 0) AS cost_micros
             FROM (SELECT s.run_id, s.name, r.agent_id, r.created_at, s.result AS result
                   FROM runs r JOIN run_steps s ON s.run_id = r.id
                   WHERE r.owner = $1 AND r.created_at >= $2 AND r.created_at < $3
                     AND s.kind = 'model' AND s.status = 'finished' AND s.fence > 0) AS c
             GROUP BY 1 ORDER BY 1"
        )
    };
}

pub const BY_AGENT: Sql = Sql::each(postgres!("COALESCE(c.agent_id, '')"), sqlite!("COALESCE(c.agent_id, '')"));
/// The model that was asked; of a call from before that was kept, the first that would have been.
pub const BY_MODEL: Sql = Sql::each(
    postgres!("COALESCE(NULLIF(c.result ->> 'answered_by', ''), c.name)"),
    sqlite!("COALESCE(NULLIF(c.result ->> 'answered_by', ''), c.name)"),
);
pub const BY_DAY: Sql = Sql::each(
    postgres!("TO_CHAR(TO_TIMESTAMP(c.created_at / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"),
    sqlite!("DATE(c.created_at / 1000000, 'unixepoch')"),
);
pub const STATEMENTS: &[Sql] = &[BY_AGENT, BY_MODEL, BY_DAY];

/// Calls of the owner's runs that were accepted from `from` on and before `to`, grouped and in the order of their keys.
pub async fn sums(db: &Db, by: Sql, owner: &Owner, from: Timestamp, to: Timestamp) -> Result<Vec<Sum>> {
    query(by).bind(owner.as_str()).bind(from).bind(to).all(db).await
}
