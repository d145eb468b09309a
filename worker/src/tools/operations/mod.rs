//! Tools that act for their owner while nobody watches: THE list.
mod notify_user;
mod schedule_create;

use std::sync::Arc;

use super::Tool;

pub fn all() -> Vec<Arc<dyn Tool>> {
    vec![Arc::new(notify_user::NotifyUser), Arc::new(schedule_create::ScheduleCreate)]
}
