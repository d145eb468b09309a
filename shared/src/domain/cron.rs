//! Cron patterns on the clocks of a time zone.
//!
//! A pattern that names its hours goes by the wall clock: each of its times comes once a day. What falls into a spring gap comes at
//! the gap's end; what an autumn clock shows twice comes in the first pass. A pattern of every hour (`*/15 * * * *`) goes by elapsed
//! time: it skips what the clock skips and repeats what it repeats.
use std::str::FromStr;

use chrono::{DateTime, LocalResult, NaiveDateTime, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use croner::{
    Cron, CronDateTime,
    parser::{CronParser, Seconds, Year},
};

use crate::{Error, Result, clock::Timestamp};

/// No pattern needs more.
const MAX_LENGTH: usize = 200;

#[derive(Clone, Debug)]
pub struct CronSchedule {
    cron: Cron,
    zone: Tz,
    names_hours: bool,
}

impl CronSchedule {
    /// `cron` has five fields, six with the seconds first, or is one of `@hourly @daily @weekly @monthly @yearly`. `timezone` is an IANA name.
    ///
    /// # Errors
    /// `Invalid` with the field `cron` or `timezone`.
    pub fn parse(cron: &str, timezone: &str) -> Result<Self> {
        let zone = Tz::from_str(timezone)
            .map_err(|_| Error::invalid("timezone", format!("{timezone:?} is no IANA time zone; write it as Europe/Vienna")))?;
        let text = cron.trim();
        let problem = |why: String| Error::invalid("cron", format!("{text:?} is no cron pattern: {why}"));
        if text.len() > MAX_LENGTH {
            return Err(Error::invalid("cron", format!("a cron pattern has at most {MAX_LENGTH} characters")));
        }
        let fields: Vec<_> = text.split_whitespace().collect();
        let hours = match fields[..] {
            [name] if name.starts_with('@') => {
                if name.eq_ignore_ascii_case("@hourly") {
                    "*"
                } else {
                    "0"
                }
            }
            [_, hours, _, _, _] | [_, _, hours, _, _, _] => hours,
            _ => return Err(problem("five or six fields are needed, or a name as @daily".to_owned())),
        };
        // The parser takes `,` for a list of nothing; a time for it would be looked for, for minutes, in all the years that there are.
        if fields.iter().any(|field| field.split(',').any(str::is_empty)) {
            return Err(problem("a list has an empty place".to_owned()));
        }
        let names_hours = !hours.contains(['*', '?']);
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|e| problem(e.to_string()))?;
        Ok(Self { cron, zone, names_hours })
    }

    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The pattern in English.
    pub fn describe(&self) -> String {
        self.cron.describe()
    }

    /// The first time after `at`. `None`: it never comes (a 30th of February).
    pub fn next(&self, at: Timestamp) -> Option<Timestamp> {
        let at = at.utc();
        let next = if self.names_hours { self.next_on_the_wall(at)? } else { self.next_elapsed(at)? };
        Some(next.into())
    }

    /// The first `count` times after `at`.
    pub fn upcoming(&self, at: Timestamp, count: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next(at), |at| self.next(*at)).take(count).collect()
    }

    fn next_elapsed(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        Some(self.search(&at.with_timezone(&self.zone))?.to_utc())
    }

    /// Walks what the wall clock shows, and looks when it does.
    fn next_on_the_wall(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut wall = at.with_timezone(&self.zone).naive_local();
        loop {
            wall = self.search(&wall.and_utc())?.naive_utc();
            match first_showing(wall, self.zone) {
                // Behind: a time of the first pass, seen from the second, or one that a gap has moved.
                Some(next) if next > at => return Some(next),
                _ => {}
            }
        }
    }

    fn search<T: CronDateTime>(&self, from: &T) -> Option<T> {
        self.cron.find_next_occurrence(from, false).ok()
    }
}

/// When the clocks of `zone` show `wall` for the first time; in a gap, its end.
fn first_showing(wall: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&wall) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Some(at.to_utc()),
        LocalResult::None => GapInfo::new(&wall, &zone)?.end.map(|at| at.to_utc()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc().into()
    }

    fn times(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = CronSchedule::parse(cron, zone).unwrap_or_else(|e| panic!("{cron}: {e:?}"));
        let local = |at: &Timestamp| at.utc().with_timezone(&schedule.zone()).to_rfc3339();
        schedule.upcoming(at(after), count).iter().map(local).collect()
    }

    #[test]
    fn what_a_spring_gap_swallows_comes_at_its_end_once() {
        let known: [(&str, &str, &str, &[&str]); 6] = [
            (
                "30 2 * * *",
                "America/New_York",
                "2026-03-07T12:00:00-05:00",
                &["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"],
            ),
            (
                "0,30 2 * * *",
                "America/New_York",
                "2026-03-08T01:00:00-05:00",
                &["2026-03-08T03:00:00-04:00", "2026-03-09T02:00:00-04:00"],
            ),
            (
                "0,30 2,3 * * *",
                "America/New_York",
                "2026-03-08T01:00:00-05:00",
                &["2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00"],
            ),
            ("15 1 * * *", "Europe/London", "2026-03-28T12:00:00Z", &["2026-03-29T02:00:00+01:00", "2026-03-30T01:15:00+01:00"]),
            (
                "15 2 * * *",
                "Australia/Lord_Howe",
                "2026-10-03T12:00:00+10:30",
                &["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"],
            ),
            (
                "30 2 * * *",
                "Asia/Shanghai",
                "2026-03-07T12:00:00+08:00",
                &["2026-03-08T02:30:00+08:00", "2026-03-09T02:30:00+08:00"],
            ),
        ];
        for (cron, zone, after, expected) in known {
            assert_eq!(times(cron, zone, after, expected.len()), expected, "{cron} in {zone}");
        }
    }

    #[test]
    fn what_an_autumn_clock_shows_twice_comes_in_the_first_pass() {
        let known: [(&str, &str, &str, &[&str]); 6] = [
            (
                "30 1 * * *",
                "America/New_York",
                "2026-10-31T12:00:00-04:00",
                &["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"],
            ),
            // Asked in the second pass.
            ("30 1 * * *", "America/New_York", "2026-11-01T01:10:00-05:00", &["2026-11-02T01:30:00-05:00"]),
            (
                "*/30 1 * * *",
                "America/New_York",
                "2026-11-01T00:00:00-04:00",
                &["2026-11-01T01:00:00-04:00", "2026-11-01T01:30:00-04:00", "2026-11-02T01:00:00-05:00"],
            ),
            ("30 1 * * *", "Europe/London", "2026-10-25T00:00:00+01:00", &["2026-10-25T01:30:00+01:00", "2026-10-26T01:30:00Z"]),
            (
                "45 1 * * *",
                "Australia/Lord_Howe",
                "2026-04-04T12:00:00+11:00",
                &["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"],
            ),
            ("0 2 * * *", "America/New_York", "2026-11-01T00:00:00-04:00", &["2026-11-01T02:00:00-05:00"]),
        ];
        for (cron, zone, after, expected) in known {
            let expected: Vec<_> = expected.iter().map(|t| t.replace('Z', "+00:00")).collect();
            assert_eq!(times(cron, zone, after, expected.len()), expected, "{cron} in {zone}");
        }
    }

    #[test]
    fn a_pattern_of_every_hour_goes_by_elapsed_time() {
        let spring = times("*/30 * * * *", "America/New_York", "2026-03-08T01:00:00-05:00", 3);
        assert_eq!(spring, ["2026-03-08T01:30:00-05:00", "2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00"]);
        let autumn = times("*/30 * * * *", "America/New_York", "2026-11-01T01:00:00-04:00", 4);
        assert_eq!(
            autumn,
            ["2026-11-01T01:30:00-04:00", "2026-11-01T01:00:00-05:00", "2026-11-01T01:30:00-05:00", "2026-11-01T02:00:00-05:00"]
        );
        assert_eq!(times("@hourly", "Australia/Lord_Howe", "2026-10-04T01:30:00+10:30", 1), ["2026-10-04T03:00:00+11:00"]);
    }

    #[test]
    fn fields_names_and_seconds() {
        let after = "2026-01-01T00:00:00Z";
        for (cron, expected) in [
            ("@daily", "2026-01-02T00:00:00+00:00"),
            ("@weekly", "2026-01-04T00:00:00+00:00"),
            ("@monthly", "2026-02-01T00:00:00+00:00"),
            ("@yearly", "2027-01-01T00:00:00+00:00"),
            ("15 30 9 * * MON-FRI", "2026-01-01T09:30:15+00:00"),
            ("0 12 L * *", "2026-01-31T12:00:00+00:00"),
            ("0 12 * * FRI#2", "2026-01-09T12:00:00+00:00"),
            ("0 0 29 2 *", "2028-02-29T00:00:00+00:00"),
            ("0 0 13 * *", "2026-01-13T00:00:00+00:00"),
        ] {
            assert_eq!(times(cron, "UTC", after, 1), [expected], "{cron}");
        }
        assert_eq!(
            times("* * * * * *", "UTC", "2025-12-31T23:59:59.900Z", 2),
            ["2026-01-01T00:00:00+00:00", "2026-01-01T00:00:01+00:00"]
        );
    }

    #[test]
    fn what_never_comes_ends_and_what_is_no_pattern_says_so() {
        assert_eq!(times("0 0 30 2 *", "America/New_York", "2026-01-01T00:00:00Z", 1), Vec::<String>::new());
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* * * * * * *",
            "@sometimes",
            "nonsense at all for us",
            "0 0 * * * 2026",
            "* , * * *",
            "*/5 , * * * *",
            "0, 1 * * *",
            "0 ,1 * * *",
            "0 0 1,,2 * *",
        ] {
            assert_eq!(CronSchedule::parse(bad, "UTC").unwrap_err().fields[0].field, "cron", "{bad}");
        }
        assert_eq!(CronSchedule::parse("@daily", "Mars/Olympus").unwrap_err().fields[0].field, "timezone");
    }

    /// An independent calculation: each second of the days around a change, as the wall clock shows it. A time of day comes at the first
    /// second that shows it, or at the first after it on a clock that has left it out; a pattern of every hour comes whenever it is shown.
    #[test]
    fn the_days_around_a_change_second_by_second() {
        let changes = [
            ("America/New_York", ["2026-03-08", "2026-11-01"]),
            ("Europe/London", ["2026-03-29", "2026-10-25"]),
            ("Australia/Lord_Howe", ["2026-04-05", "2026-10-04"]),
            ("Asia/Shanghai", ["2026-03-08", "2026-11-01"]),
        ];
        for (zone, day) in changes.iter().flat_map(|(zone, days)| days.iter().map(move |day| (*zone, *day))) {
            let noon = at(&format!("{day}T12:00:00Z")).0 / 1_000_000;
            let (from, to) = (noon - 2 * 86_400, noon + 2 * 86_400);
            let shown = walls(zone, from, to);
            for (hour, minute, second) in
                [(0, 0, 0), (0, 59, 59), (1, 15, 0), (1, 45, 30), (2, 0, 0), (2, 15, 0), (2, 30, 0), (3, 0, 0)]
            {
                let cron = format!("{second} {minute} {hour} * * *");
                let expected = of_the_wall(&shown, from, hour * 3600 + minute * 60 + second);
                assert_eq!(between(&cron, zone, from, to), expected, "{cron} in {zone} around {day}");
            }
            let quarters: Vec<_> = shown.iter().zip(from..).filter(|(wall, _)| *wall % 900 == 0).map(|(_, at)| at).collect();
            assert_eq!(between("*/15 * * * *", zone, from, to), after(from, quarters), "each quarter in {zone} around {day}");
        }
    }

    /// What the wall clock shows at each second, as seconds since 1970 of a clock without a zone.
    fn walls(zone: &str, from: i64, to: i64) -> Vec<i64> {
        let zone: Tz = zone.parse().unwrap();
        (from..=to)
            .map(|s| DateTime::from_timestamp(s, 0).unwrap().with_timezone(&zone).naive_local().and_utc().timestamp())
            .collect()
    }

    fn of_the_wall(shown: &[i64], from: i64, time: i64) -> Vec<i64> {
        let days: std::collections::BTreeSet<_> = shown.iter().map(|wall| wall.div_euclid(86_400)).collect();
        let first = |day: &i64| shown.iter().position(|wall| *wall >= day * 86_400 + time);
        // A day that was over before the walk began is none of it.
        let begun = |day: &&i64| shown[0] < **day * 86_400 + time;
        let found = days.iter().filter(begun).filter_map(first).map(|seconds| from + i64::try_from(seconds).unwrap());
        after(from, found.collect())
    }

    fn after(from: i64, mut all: Vec<i64>) -> Vec<i64> {
        all.retain(|at| *at > from);
        all.dedup();
        all
    }

    fn between(cron: &str, zone: &str, from: i64, to: i64) -> Vec<i64> {
        let schedule = CronSchedule::parse(cron, zone).unwrap();
        let end = Timestamp(to * 1_000_000);
        let all = std::iter::successors(schedule.next(Timestamp(from * 1_000_000)), |at| schedule.next(*at));
        all.take_while(|at| *at <= end).map(|at| at.0 / 1_000_000).collect()
    }
}
