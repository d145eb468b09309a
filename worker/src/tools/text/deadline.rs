//! The time that one call may work where input alone does not bound it.
use std::time::{Duration, Instant};

use crate::tools::ToolError;

#[derive(Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    pub fn has_passed(self) -> bool {
        Instant::now() >= self.0
    }

    /// # Errors
    /// `TOO_COMPLEX` when it has passed.
    pub fn check(self) -> Result<(), ToolError> {
        if self.has_passed() {
            return Err(ToolError::new("TOO_COMPLEX", "it takes too long; make the input smaller or simpler"));
        }
        Ok(())
    }
}
