//! A pattern, and when it comes next: eight bytes for the instant, one for the zone, the rest is the pattern.
#![no_main]

use chrono_tz::TZ_VARIANTS;
use libfuzzer_sys::fuzz_target;
use runmill_shared::{clock::Timestamp, domain::cron::CronSchedule};

const SECOND: i64 = 1_000_000;
/// 1970 to 2100, in microseconds.
const INSTANTS: i64 = 4_102_444_800 * SECOND;

fuzz_target!(|data: &[u8]| {
    let Some((instant, rest)) = data.split_first_chunk::<8>() else { return };
    let Some((zone, pattern)) = rest.split_first() else { return };
    let Ok(pattern) = std::str::from_utf8(pattern) else { return };
    let zone = TZ_VARIANTS[usize::from(*zone) * 2 % TZ_VARIANTS.len()];
    let Ok(schedule) = CronSchedule::parse(pattern, zone.name()) else { return };
    schedule.describe();
    let from = Timestamp(i64::from_le_bytes(*instant).rem_euclid(INSTANTS));
    let mut last = from;
    for next in schedule.upcoming(from, 4) {
        assert!(next > last, "{next:?} is not after {last:?}");
        assert_eq!(next.0 % SECOND, 0, "a whole second");
        // Nothing lies between them, wherever one asks.
        for between in [last.0 + (next.0 - last.0) / 2, next.0 - 1] {
            assert_eq!(schedule.next(Timestamp(between)), Some(next), "asked at {between}, after {last:?}");
        }
        last = next;
    }
});
