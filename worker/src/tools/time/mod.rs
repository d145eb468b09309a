//! Dates, times and time zones.
mod cron_next;
mod date_add;
mod date_diff;
mod moment;
mod now;
mod parse_date;
mod timezone_convert;

use std::sync::Arc;

use super::Tool;

pub fn all() -> Vec<Arc<dyn Tool>> {
    vec![now::tool(), date_add::tool(), date_diff::tool(), timezone_convert::tool(), parse_date::tool(), cron_next::tool()]
}
