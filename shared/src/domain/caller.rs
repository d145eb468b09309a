//! Who asks. A service function takes the `Owner` that `Caller::can` yields, so that a permission check cannot be forgotten.
use uuid::Uuid;

use crate::error::{Error, Result};

/// Whose data it is. Every query names one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner(String);

impl Owner {
    /// For work whose owner is already established, as a worker's that goes on with a stored run.
    pub fn of_row(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Admin,
    User,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Everything that the owner may do.
    Full,
    /// Reading the events of one thread: what a stream token allows.
    Stream { thread: String },
}

/// What an action needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    Read,
    Write,
    Stream { thread: &'a str },
}

#[derive(Clone, Debug)]
pub struct Caller {
    owner: Owner,
    pub role: Role,
    grant: Grant,
}

impl Caller {
    /// The user of an open start.
    pub fn local() -> Self {
        Self { owner: Owner("local".into()), role: Role::Admin, grant: Grant::Full }
    }

    pub fn user(id: Uuid, role: Role) -> Self {
        Self { owner: Owner(id.to_string()), role, grant: Grant::Full }
    }

    /// A run that acts for its owner, and has no more rights than any user.
    pub fn run_of(owner: &Owner) -> Self {
        Self { owner: owner.clone(), role: Role::User, grant: Grant::Full }
    }

    /// The bearer of a stream token.
    pub fn reader(owner: impl Into<String>, thread: impl Into<String>) -> Self {
        Self { owner: Owner(owner.into()), role: Role::User, grant: Grant::Stream { thread: thread.into() } }
    }

    pub fn can(&self, scope: Scope<'_>) -> Result<&Owner> {
        match (&self.grant, scope) {
            (Grant::Full, _) => Ok(&self.owner),
            (Grant::Stream { thread }, Scope::Stream { thread: wanted }) if thread == wanted => Ok(&self.owner),
            (Grant::Stream { .. }, _) => Err(Error::forbidden("this token reads the events of one thread and nothing else")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_token_reads_its_own_thread_only() {
        let reader = Caller::reader("u", "t1");
        assert!(reader.can(Scope::Stream { thread: "t1" }).is_ok());
        for scope in [Scope::Stream { thread: "t2" }, Scope::Read, Scope::Write] {
            assert!(reader.can(scope).is_err(), "{scope:?}");
        }
    }
}
