use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// 2026-03-08T00:00:00Z: the clocks of New York change on this day.
const START: i64 = 1_772_928_000;
const WIDE: Reach = Reach { window: Duration::from_secs(1_000_000), max: 100_000, buffered: 3, at_once: usize::MAX };

fn at(second: i64) -> Timestamp {
    Timestamp((START + second) * 1_000_000)
}

fn table(cron: &str, timezone: &str, overlap: Overlap, jitter_seconds: u64) -> Timetable {
    let spec = Spec { cron: cron.into(), timezone: timezone.into(), overlap, jitter_seconds, ..Spec::default() };
    Timetable::of(Uuid::from_u128(7), &spec).unwrap()
}

/// The instants that have a fire of their own.
fn instants(actions: &[Action]) -> Vec<Timestamp> {
    actions.iter().filter(|a| !matches!(a, Action::Missed { .. })).map(Action::until).collect()
}

/// What a schedule's rows and runs would be, with the ticks of any number of schedulers.
struct Simulation {
    table: Timetable,
    fired_until: Timestamp,
    /// Runs that have not ended and are not cancelled.
    running: Vec<Timestamp>,
    buffered: VecDeque<Timestamp>,
    started: Vec<Timestamp>,
    seen: Vec<Timestamp>,
    reach: Reach,
}

impl Simulation {
    fn new(cron: &str, overlap: Overlap, reach: Reach) -> Self {
        Self {
            table: table(cron, "UTC", overlap, 0),
            fired_until: at(0),
            running: Vec::new(),
            buffered: VecDeque::new(),
            started: Vec::new(),
            seen: Vec::new(),
            reach,
        }
    }

    fn tick(&mut self, now: Timestamp) {
        let previous = Previous { running: self.running.len(), buffered: self.buffered.len() };
        let actions = self.table.plan(self.fired_until, now, previous, self.reach);
        for action in &actions {
            assert!(action.until() > self.fired_until && action.until() <= now, "{action:?} at {now:?}");
            self.fired_until = action.until();
            match action {
                Action::Start { at, cancels } => {
                    if *cancels {
                        self.running.clear();
                    }
                    self.running.push(*at);
                    self.started.push(*at);
                }
                Action::Buffer { at } => self.buffered.push_back(*at),
                Action::Skip { .. } | Action::Missed { .. } => {}
            }
        }
        self.seen.extend(instants(&actions));
    }

    /// The oldest run ends; what waits for it starts.
    fn end(&mut self) {
        if self.running.is_empty() {
            return;
        }
        self.running.remove(0);
        if self.running.is_empty()
            && let Some(next) = self.buffered.pop_front()
        {
            self.running.push(next);
            self.started.push(next);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Later(i64),
    /// The clock is set back.
    Earlier(i64),
    End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![(0_i64..9).prop_map(Step::Later), (1_i64..6).prop_map(Step::Earlier), Just(Step::End)];
    prop::collection::vec(step, 1..60)
}

fn simulate(overlap: Overlap, reach: Reach, steps: &[Step], mut check: impl FnMut(&Simulation)) -> (Simulation, i64) {
    let mut all = Simulation::new("*/3 * * * * *", overlap, reach);
    let (mut now, mut latest) = (0, 0);
    for step in steps {
        match step {
            Step::Later(by) => now += by,
            Step::Earlier(by) => now -= by,
            Step::End => all.end(),
        }
        latest = now.max(latest);
        all.tick(at(now));
        check(&all);
    }
    (all, latest)
}

fn every_third(until: i64) -> Vec<Timestamp> {
    (1..=until).filter(|second| second % 3 == 0).map(at).collect()
}

fn in_order(all: &[Timestamp]) -> bool {
    all.windows(2).all(|two| two[0] < two[1])
}

proptest! {
    #[test]
    fn skip_never_runs_two_at_once(steps in steps()) {
        let (all, latest) = simulate(Overlap::Skip, WIDE, &steps, |s| assert!(s.running.len() <= 1 && s.buffered.is_empty()));
        prop_assert!(in_order(&all.started));
        prop_assert_eq!(all.seen, every_third(latest));
    }

    #[test]
    fn buffer_one_keeps_the_first_that_has_to_wait(steps in steps()) {
        let mut waiting = None;
        let (all, latest) = simulate(Overlap::BufferOne, WIDE, &steps, |s| {
            assert!(s.running.len() <= 1 && s.buffered.len() <= 1);
            let now = s.buffered.front().copied();
            assert!(waiting.is_none() || now == waiting || s.started.contains(&waiting.unwrap()), "it lost its place");
            waiting = now;
        });
        prop_assert!(in_order(&all.started));
        prop_assert_eq!(all.seen, every_third(latest));
    }

    #[test]
    fn buffer_all_runs_them_one_by_one_in_their_order(steps in steps()) {
        let roomy = Reach { buffered: 10_000, ..WIDE };
        let (mut all, latest) = simulate(Overlap::BufferAll, roomy, &steps, |s| assert!(s.running.len() <= 1));
        while !all.running.is_empty() {
            all.end();
        }
        prop_assert_eq!(&all.started, &every_third(latest), "all of them, in order");
        let (narrow, latest) = simulate(Overlap::BufferAll, WIDE, &steps, |s| assert!(s.buffered.len() <= WIDE.buffered));
        prop_assert!(in_order(&narrow.started));
        prop_assert_eq!(narrow.seen, every_third(latest), "what there is no room for is skipped, not forgotten");
    }

    #[test]
    fn cancel_previous_leaves_one(steps in steps()) {
        let (all, latest) = simulate(Overlap::CancelPrevious, WIDE, &steps, |s| {
            assert!(s.running.len() <= 1);
            assert!(s.running.first().is_none_or(|at| s.started.last() == Some(at)), "it is the latest");
        });
        let expected = every_third(latest);
        prop_assert_eq!(all.started.last(), expected.last(), "the latest always starts");
        prop_assert_eq!(all.seen, expected);
    }

    #[test]
    fn allow_runs_all(steps in steps()) {
        let (all, latest) = simulate(Overlap::Allow, WIDE, &steps, |s| assert!(s.buffered.is_empty()));
        prop_assert_eq!(&all.started, &every_third(latest));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn how_often_somebody_looks_makes_no_difference(
        cron in prop::sample::select(vec!["20 */3 * * * *", "*/5 * * * *", "30 2 * * *", "0,30 1,2,3 * * *", "@hourly", "15 4 8 3 SUN"]),
        zone in prop::sample::select(vec!["UTC", "America/New_York", "Australia/Lord_Howe"]),
        jitter in prop::sample::select(vec![0_u64, 5]),
        at_once in prop::sample::select(vec![5_usize, 1000]),
        mut looks in prop::collection::vec(1_i64..30_000, 0..10),
    ) {
        let table = table(cron, zone, Overlap::Allow, jitter);
        let end = 30_000;
        let once = instants(&table.plan(at(0), at(end), Previous::default(), WIDE));
        looks.push(end);
        looks.sort_unstable();
        let (mut until, mut often) = (at(0), Vec::new());
        for now in looks {
            loop {
                let actions = table.plan(until, at(now), Previous::default(), Reach { at_once, ..WIDE });
                until = actions.last().map_or(until, Action::until);
                often.extend(instants(&actions));
                if actions.is_empty() {
                    break;
                }
            }
        }
        prop_assert_eq!(often, once);
    }

    #[test]
    fn what_is_made_up_for_is_the_latest_within_the_window(
        away in 1_i64..4000, window in 10_u64..2000, max in 1_usize..400,
    ) {
        let table = table("* * * * * *", "UTC", Overlap::Allow, 0);
        let reach = Reach { window: Duration::from_secs(window), max, ..WIDE };
        let actions = table.plan(at(0), at(away), Previous::default(), reach);
        let kept = instants(&actions);
        // Of the last `window` seconds both ends are in it.
        let expected = away.min(i64::try_from(window).unwrap() + 1).min(i64::try_from(max).unwrap());
        prop_assert_eq!(&kept, &(away - expected + 1..=away).map(at).collect::<Vec<_>>());
        let left = u64::try_from(away - expected).unwrap();
        match &actions[0] {
            Action::Missed { since, until, count } => {
                prop_assert_eq!((*since, *count), (at(1), left.min(COUNTED)));
                prop_assert!(*until < kept[0]);
            }
            _ => prop_assert_eq!(left, 0),
        }
    }

    #[test]
    fn a_delay_is_always_the_same_and_never_reaches_the_next(second in 0_i64..200_000, jitter in 1_u64..1000) {
        let table = table("30 2,3 * * *", "America/New_York", Overlap::Allow, jitter);
        let instant = table.next(at(second)).unwrap();
        let due = table.due_at(instant);
        prop_assert!(due >= instant && due.since(instant) < Duration::from_secs(jitter) && due < table.next(instant).unwrap());
        prop_assert_eq!(due, table.due_at(instant));
        let before = Timestamp(due.0 - 1);
        prop_assert!(table.plan(at(second), before, Previous::default(), WIDE).is_empty());
        prop_assert_eq!(instants(&table.plan(at(second), due, Previous::default(), WIDE)), vec![instant]);
    }
}

#[test]
fn delays_of_different_instants_differ() {
    let table = table("* * * * *", "UTC", Overlap::Allow, 59);
    let delays: Vec<_> = table.upcoming(at(0), 50).into_iter().map(|at| table.due_at(at).since(at)).collect();
    let mut different = delays.clone();
    different.sort();
    different.dedup();
    assert!(different.len() > 45, "{delays:?}");
}

#[test]
fn a_start_and_an_end_bound_the_instants() {
    let spec = Spec {
        cron: "*/10 * * * * *".into(),
        timezone: "UTC".into(),
        starts_at: Some(at(20)),
        ends_at: Some(at(40)),
        ..Spec::default()
    };
    let table = Timetable::of(Uuid::nil(), &spec).unwrap();
    assert_eq!(table.upcoming(at(0), 9), [at(20), at(30), at(40)]);
    assert_eq!(table.next(at(40)), None);
}

#[test]
fn a_long_absence_costs_no_walk_through_all_of_it() {
    let table = table("* * * * * *", "UTC", Overlap::Allow, 0);
    let year = 365 * 86_400;
    let reach = Reach { window: Duration::from_secs(3600), max: 100, ..WIDE };
    let began = std::time::Instant::now();
    let actions = table.plan(at(0), at(year), Previous::default(), reach);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(actions.len(), 101);
    assert!(matches!(actions[0], Action::Missed { count: COUNTED, .. }));
    assert_eq!(actions[0].until(), Timestamp(at(year - 99).0 - 1), "all before the first that is kept");
}

fn faults(change: impl FnOnce(&mut Schedule)) -> Vec<String> {
    let spec = Spec { cron: "*/5 * * * *".into(), timezone: "UTC".into(), input: "hello".into(), ..Spec::default() };
    let mut schedule = Schedule {
        id: Uuid::nil(),
        owner: "ann".into(),
        name: "mine".into(),
        target: Target { kind: TargetKind::Agent, id: "demo".into() },
        spec,
        enabled: true,
        paused_reason: None,
        failures: 0,
        fired_until: at(0),
        next_at: None,
        version: 1,
        created_at: at(0),
        updated_at: at(0),
    };
    change(&mut schedule);
    let settings = crate::config::Config::defaults().unwrap().schedules;
    schedule.faults(&settings, true, at(0)).into_iter().map(|f| f.field).collect()
}

#[test]
fn every_bad_field_is_named() {
    assert_eq!(faults(|_| {}), [""; 0]);
    let all = faults(|s| {
        s.name = " ".into();
        s.spec = Spec {
            cron: "61 * * * *".into(),
            timezone: "Mars/Olympus".into(),
            starts_at: Some(at(10)),
            ends_at: Some(at(-10)),
            jitter_seconds: 100_000,
            catch_up: CatchUp { window_seconds: Some(1), max: Some(0) },
            max_failures: Some(0),
            ..Spec::default()
        }
    });
    let expected = [
        "name",
        "input",
        "ends_at",
        "ends_at",
        "catch_up.window_seconds",
        "catch_up.max",
        "max_failures",
        "jitter_seconds",
        "cron",
        "timezone",
    ];
    assert_eq!(all, expected);
    assert_eq!(faults(|s| s.spec.jitter_seconds = 300), ["jitter_seconds"]);
    assert_eq!(faults(|s| s.spec.jitter_seconds = 299), [""; 0]);
    assert_eq!(faults(|s| s.spec.cron = "0 0 30 2 *".into()), ["cron"], "it never comes");
    assert_eq!(faults(|s| s.spec.input = "x".repeat(70_000).into()), ["input"]);
}
