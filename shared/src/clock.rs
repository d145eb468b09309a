//! The one clock: monotonic time plus the offset to the database's clock, so that every process agrees on
//! leases, delays and scores even when a machine's wall clock is wrong or steps.
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z. What the database stores, and what scores are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub fn after(self, d: Duration) -> Self {
        Self(self.0.saturating_add(micros(d)))
    }

    pub fn before(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(micros(d)))
    }

    /// How long from `earlier` to this; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    pub fn utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }

    /// `2026-03-16T10:00:00.123456Z`
    pub fn rfc3339(self) -> String {
        self.utc().to_rfc3339_opts(SecondsFormat::Micros, true)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(t: DateTime<Utc>) -> Self {
        Self(t.timestamp_micros())
    }
}

fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

#[derive(Clone)]
pub struct Clock(Arc<Inner>);

enum Inner {
    Real { start: Instant, at_start: AtomicI64 },
    Manual(AtomicI64),
}

impl Clock {
    /// Starts from this machine's wall clock; `align` moves it to the database's.
    pub fn real() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
        let at_start = AtomicI64::new(Utc::now().timestamp_micros());
        Self(Arc::new(Inner::Real { start: Instant::now(), at_start }))
    }

    /// A clock that only `advance` moves, for tests.
    pub fn manual(start: Timestamp) -> Self {
        Self(Arc::new(Inner::Manual(AtomicI64::new(start.0))))
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(match &*self.0 {
            Inner::Real { start, at_start } => at_start.load(Ordering::Relaxed) + micros(start.elapsed()),
            Inner::Manual(now) => now.load(Ordering::Relaxed),
        })
    }

    /// Moves a real clock so that it reads what the database's clock read at `when`.
    pub fn align(&self, database: Timestamp, when: Instant) {
        if let Inner::Real { start, at_start } = &*self.0 {
            at_start.store(database.0 - micros(when.saturating_duration_since(*start)), Ordering::Relaxed);
        }
    }

    /// Moves a manual clock; a real one goes by itself.
    pub fn advance(&self, d: Duration) {
        if let Inner::Manual(now) = &*self.0 {
            now.fetch_add(micros(d), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_clock_follows_the_databases() {
        let clock = Clock::real();
        clock.align(Timestamp(5_000_000), Instant::now());
        assert!(clock.now().since(Timestamp(5_000_000)) < Duration::from_secs(5));
    }

    #[test]
    fn timestamps_print_as_rfc3339_with_microseconds() {
        assert_eq!(Timestamp(1_773_655_200_000_001).rfc3339(), "2026-03-16T10:00:00.000001Z");
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
    }
}
