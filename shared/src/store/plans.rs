//! Writing a plan over the tasks that are there: a few statements, however many tasks it has.
use std::collections::HashSet;

use serde_json::json;
use uuid::Uuid;

use super::{
    db::{Sql, Tx, query},
    tasks::{NewTask, depend},
};
use crate::{clock::Timestamp, domain::task::Assignee, error::Result};

/// What is tried again has all its tries before it.
pub const REWRITE: Sql = Sql::each(
    "UPDATE tasks SET title = p.title, description = p.description, priority = p.priority, position = p.position,
         assignee_kind = p.assignee_kind, assignee_id = p.assignee_id, requires_approval = p.requires_approval,
         parent_id = p.parent_id, attempt = CASE WHEN p.again THEN 0 ELSE tasks.attempt END,
         version = tasks.version + CASE WHEN p.changed THEN 1 ELSE 0 END,
         updated_at = CASE WHEN p.changed THEN $2 ELSE tasks.updated_at END
     FROM json_to_recordset($1::json) AS p (id UUID, title TEXT, description TEXT, priority BIGINT, position BIGINT,
         assignee_kind TEXT, assignee_id TEXT, requires_approval BOOLEAN, parent_id UUID, again BOOLEAN, changed BOOLEAN)
     WHERE tasks.id = p.id AND tasks.status IN ('pending', 'ready')",
    "UPDATE tasks SET title = p.value ->> 'title', description = p.value ->> 'description', priority = p.value ->> 'priority',
         position = p.value ->> 'position', assignee_kind = p.value ->> 'assignee_kind', assignee_id = p.value ->> 'assignee_id',
         requires_approval = p.value ->> 'requires_approval', parent_id = unhex(p.value ->> 'parent_id'),
         attempt = CASE WHEN p.value ->> 'again' THEN 0 ELSE tasks.attempt END,
         version = tasks.version + (p.value ->> 'changed'),
         updated_at = CASE WHEN p.value ->> 'changed' THEN $2 ELSE tasks.updated_at END
     FROM json_each($1) AS p
     WHERE tasks.id = unhex(p.value ->> 'id') AND tasks.status IN ('pending', 'ready')",
);
pub const FORGET: Sql = Sql::each(
    "DELETE FROM task_dependencies WHERE task_id IN (SELECT j.id::UUID FROM json_array_elements_text($1::json) AS j (id))",
    "DELETE FROM task_dependencies WHERE task_id IN (SELECT unhex(j.value) FROM json_each($1) AS j)",
);
pub const STATEMENTS: &[Sql] = &[REWRITE, FORGET];

/// Makes the tasks, none of which has been begun, as the plan has them. Those of `again` are tried from the beginning.
pub async fn rewrite(tx: &mut Tx, tasks: &[NewTask], changed: &HashSet<Uuid>, again: &[Uuid], now: Timestamp) -> Result<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    let row = |t: &NewTask| {
        json!({
            "id": t.id.simple(), "title": t.title, "description": t.description, "priority": t.priority, "position": t.position,
            "assignee_kind": t.assignee.as_ref().map(Assignee::kind), "assignee_id": t.assignee.as_ref().map(Assignee::id),
            "requires_approval": t.requires_approval, "parent_id": t.parent_id.map(Uuid::simple), "again": again.contains(&t.id),
            "changed": changed.contains(&t.id),
        })
    };
    query(REWRITE).bind_json(&tasks.iter().map(row).collect::<Vec<_>>())?.bind(now).execute(&mut *tx).await?;
    let changed: Vec<_> = tasks.iter().filter(|t| changed.contains(&t.id)).collect();
    query(FORGET).bind_ids(&changed.iter().map(|t| t.id).collect::<Vec<_>>()).execute(&mut *tx).await?;
    depend(tx, &changed.iter().flat_map(|t| t.depends_on.iter().map(|on| (t.id, *on))).collect::<Vec<_>>()).await
}
