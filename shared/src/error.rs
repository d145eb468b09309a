//! The one error type. A kind decides the HTTP status (in `api`), a code is for programs, the message for people;
//! the cause goes to the log and never to a client.
use std::{borrow::Cow, fmt, time::Duration};

pub type Result<T, E = Error> = std::result::Result<T, E>;
type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request could not be read at all: bad JSON, a bad query value (400).
    Malformed,
    /// It was read, and some of its fields break a rule (422).
    Invalid,
    Unauthenticated,
    Forbidden,
    NotFound,
    /// Something with that unique name is already there (409).
    Exists,
    /// The state of the resource forbids it (409).
    Conflict,
    /// Too many: try again after `retry_after` (429).
    Limited,
    TooLarge,
    /// A capability or a dependency is not there (503).
    Unavailable,
    Internal,
}

/// One bad field: `field` is a dotted path (`messages.0.role`), `message` says what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    pub field: String,
    pub message: String,
}

#[derive(Debug)]
pub struct Error {
    pub kind: ErrorKind,
    /// Stable, upper case, for programs: `RUN_NOT_FOUND`.
    pub code: &'static str,
    /// Safe to show to the caller.
    pub message: Cow<'static, str>,
    pub fields: Vec<FieldError>,
    pub retry_after: Option<Duration>,
    cause: Option<Cause>,
}

impl Error {
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, code, message: message.into(), fields: Vec::new(), retry_after: None, cause: None }
    }

    pub fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Malformed, "MALFORMED", message)
    }

    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid_fields(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// Names every bad field at once; the message is all of them in one line.
    pub fn invalid_fields(fields: Vec<FieldError>) -> Self {
        let all: Vec<_> = fields.iter().map(|f| format!("{}: {}", f.field, f.message)).collect();
        Self { fields, ..Self::new(ErrorKind::Invalid, "VALIDATION_ERROR", all.join("; ")) }
    }

    pub fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unauthenticated, "UNAUTHENTICATED", message)
    }

    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Forbidden, "FORBIDDEN", message)
    }

    pub fn not_found(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::NotFound, code, message)
    }

    pub fn exists(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Exists, code, message)
    }

    pub fn conflict(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Conflict, code, message)
    }

    pub fn limited(code: &'static str, message: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(ErrorKind::Limited, code, message) }
    }

    pub fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::TooLarge, "TOO_LARGE", message)
    }

    pub fn unavailable(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unavailable, code, message)
    }

    /// A fault of ours: the caller sees one fixed sentence, the log sees the cause.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self { cause: Some(cause.into()), ..Self::new(ErrorKind::Internal, "INTERNAL", "internal server error") }
    }

    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// For each of `n` who asked for the same; the cause goes to the first.
    pub fn for_each<T>(self, n: usize) -> Vec<Result<T>> {
        let again = |e: &Self| {
            let Self { kind, code, message, fields, retry_after, .. } = e;
            Self { fields: fields.clone(), retry_after: *retry_after, ..Self::new(*kind, code, message.clone()) }
        };
        let others: Vec<_> = (1..n).map(|_| Err(again(&self))).collect();
        std::iter::once(Err(self)).chain(others).take(n).collect()
    }

    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync)> {
        self.cause.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, " ({cause})"))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|c| c as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Self::internal(e)
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Self {
        Self::internal(e)
    }
}

impl From<sqlx::Error> for Error {
    /// A database that does not answer is `Unavailable`, all else is a fault of ours.
    fn from(e: sqlx::Error) -> Self {
        use sqlx::Error as E;
        if e.as_database_error().is_some_and(|d| d.is_unique_violation()) {
            return Self::exists("DUPLICATE", "it exists already").because(e);
        }
        let away = match &e {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Protocol(_) => true,
            // 57P01..57P03: shutting down or starting up; 53300: too many connections; class 08: connection; 57014: statement timeout;
            // 25P03: this process slept in a transaction, and its connection was ended; 40P01: two transactions waited for each other,
            // and this one was rolled back.
            E::Database(d) => d.code().is_some_and(|c| {
                matches!(&*c, "57P01" | "57P02" | "57P03" | "53300" | "57014" | "25P03" | "40P01") || c.starts_with("08")
            }),
            _ => false,
        };
        if away {
            return Self::unavailable("DATABASE_UNAVAILABLE", "the database does not answer").because(e);
        }
        Self::internal(e)
    }
}

impl From<redis::RedisError> for Error {
    fn from(e: redis::RedisError) -> Self {
        Self::unavailable("REDIS_UNAVAILABLE", "Redis does not answer").because(e)
    }
}
