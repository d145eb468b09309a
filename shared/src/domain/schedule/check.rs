//! The rules for what a user writes, as far as they need nobody else's word.
use std::time::Duration;

use super::{Overlap, Schedule, TargetKind, Timetable};
use crate::{clock::Timestamp, config, domain::cron::CronSchedule, error::FieldError};

const MAX_NAME: usize = 100;
/// More pauses between two instants than a pattern of hours, minutes and seconds has kinds of.
const SAMPLE: usize = 1500;
const SHORTEST: Duration = Duration::from_secs(1);
/// Less would take an ordinary delay for a miss.
const WINDOW: std::ops::RangeInclusive<u64> = 10..=604_800;
const MAX: std::ops::RangeInclusive<u64> = 1..=1000;
const FAILURES: std::ops::RangeInclusive<u64> = 1..=10_000;
const MAX_JITTER: u64 = 86_400;

#[derive(Default)]
struct Bad(Vec<FieldError>);

impl Bad {
    fn rule(&mut self, ok: bool, field: &str, message: impl Into<String>) {
        if !ok {
            self.0.push(FieldError { field: field.to_owned(), message: message.into() });
        }
    }
}

impl Schedule {
    /// Every field that breaks a rule; none: it may be stored. `sets_end`: whether its end is what is being said.
    pub fn faults(&self, settings: &config::Schedules, sets_end: bool, now: Timestamp) -> Vec<FieldError> {
        let (mut bad, spec) = (Bad::default(), &self.spec);
        let name = self.name.trim();
        let named = (1..=MAX_NAME).contains(&name.chars().count()) && !name.contains(char::is_control);
        bad.rule(named, "name", format!("1 to {MAX_NAME} characters, none of them a control character"));
        self.check_input(settings, &mut bad);
        let alone = self.target.kind != TargetKind::Goal || spec.overlap != Overlap::CancelPrevious;
        bad.rule(
            alone,
            "overlap",
            "a goal goes on with its tasks or is cancelled as a whole: skip, buffer_one, buffer_all or allow",
        );
        let ordered = spec.starts_at.is_none_or(|start| spec.ends_at.is_none_or(|end| start < end));
        bad.rule(ordered, "ends_at", "must be after starts_at");
        let ahead = !sets_end || spec.ends_at.is_none_or(|end| end > now);
        bad.rule(ahead, "ends_at", "is over already");
        let window = spec.catch_up.window_seconds.is_none_or(|n| WINDOW.contains(&n));
        bad.rule(window, "catch_up.window_seconds", range(&WINDOW));
        bad.rule(spec.catch_up.max.is_none_or(|n| MAX.contains(&n)), "catch_up.max", range(&MAX));
        bad.rule(spec.max_failures.is_none_or(|n| FAILURES.contains(&n)), "max_failures", range(&FAILURES));
        let jitter = spec.jitter_seconds <= MAX_JITTER;
        bad.rule(jitter, "jitter_seconds", format!("at most {MAX_JITTER}"));
        self.check_times(settings, jitter && ordered, now, &mut bad);
        bad.0
    }

    fn check_input(&self, settings: &config::Schedules, bad: &mut Bad) {
        let input = &self.spec.input;
        let nothing = input.is_null() || input.as_str().is_some_and(|text| text.trim().is_empty());
        bad.rule(self.target.kind != TargetKind::Agent || !nothing, "input", "is required for an agent: the message");
        let most = settings.max_input_bytes;
        bad.rule(input.to_string().len() <= most, "input", format!("at most {most} bytes"));
    }

    fn check_times(&self, settings: &config::Schedules, sound: bool, now: Timestamp, bad: &mut Bad) {
        let spec = &self.spec;
        // Each by itself, so that both are named.
        let pattern = CronSchedule::parse(&spec.cron, "UTC").err();
        let zone = CronSchedule::parse("@daily", &spec.timezone).err();
        if pattern.is_some() || zone.is_some() {
            return bad.0.extend([pattern, zone].into_iter().flatten().flat_map(|e| e.fields));
        }
        let Ok(times) = Timetable::of(self.id, spec) else { return };
        if !sound {
            return;
        }
        let comes = spec.ends_at.is_some_and(|end| end <= now) || times.next(now).is_some();
        bad.rule(comes, "cron", "there is no such time, or none between starts_at and ends_at");
        let jitter = Duration::from_secs(spec.jitter_seconds);
        if settings.min_interval.max(jitter) > SHORTEST || !jitter.is_zero() {
            let shortest = times.shortest_pause(now);
            let often = shortest.is_none_or(|pause| pause >= settings.min_interval);
            bad.rule(often, "cron", format!("fires more often than every {:?}", settings.min_interval));
            let within = shortest.is_none_or(|pause| jitter < pause);
            bad.rule(within, "jitter_seconds", "must be less than the pause between two fires");
        }
    }
}

impl Timetable {
    /// Between two instants that follow each other; `None`: there are not two.
    fn shortest_pause(&self, now: Timestamp) -> Option<Duration> {
        let (mut before, mut shortest) = (self.next(now)?, None::<Duration>);
        for _ in 0..SAMPLE {
            let Some(next) = self.next(before) else { break };
            let pause = next.since(before);
            shortest = Some(shortest.map_or(pause, |s| s.min(pause)));
            if pause <= SHORTEST {
                break;
            }
            before = next;
        }
        shortest
    }
}

fn range(allowed: &std::ops::RangeInclusive<u64>) -> String {
    format!("{} to {}", allowed.start(), allowed.end())
}
