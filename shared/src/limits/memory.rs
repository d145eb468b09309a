use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::clock::Timestamp;

/// Keys that are kept before those without a taken place are thrown out.
const SWEEP_AT: usize = 1024;

#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Places>>);

#[derive(Default)]
struct Places {
    keys: HashMap<String, Taken>,
    sweep_at: usize,
}

/// When each place was taken, oldest first, and when the last of them is given back.
#[derive(Default)]
struct Taken {
    at: VecDeque<Timestamp>,
    free_at: Timestamp,
}

impl Memory {
    /// How long to wait; `None` when a place was free.
    pub fn take(&self, key: &str, limit: u32, window: Duration, now: Timestamp) -> Option<Duration> {
        let limit = limit as usize;
        if limit == 0 {
            return Some(window);
        }
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.sweep(now);
        let taken = places.keys.entry(key.to_owned()).or_default();
        while taken.at.len() >= limit {
            // The limit-th newest: the one whose end frees a place.
            let free = taken.at[taken.at.len() - limit].after(window);
            if free > now {
                return Some(free.since(now));
            }
            taken.at.pop_front();
        }
        taken.at.push_back(now);
        taken.free_at = now.after(window);
        None
    }
}

impl Places {
    /// Its cost is spread: the next one comes when the map has doubled.
    fn sweep(&mut self, now: Timestamp) {
        if self.keys.len() >= self.sweep_at.max(SWEEP_AT) {
            self.keys.retain(|_, taken| taken.free_at > now);
            self.sweep_at = self.keys.len() * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_place_comes_back_exactly_one_window_after_it_was_taken() {
        let memory = Memory::default();
        let at = |s: u64| Timestamp(0).after(Duration::from_secs(s));
        assert_eq!(memory.take("k", 2, MINUTE, at(0)), None);
        assert_eq!(memory.take("k", 2, MINUTE, at(30)), None);
        assert_eq!(memory.take("k", 2, MINUTE, at(45)), Some(Duration::from_secs(15)));
        assert_eq!(memory.take("other", 2, MINUTE, at(45)), None);
        assert_eq!(memory.take("k", 2, MINUTE, Timestamp(at(60).0 - 1)), Some(Duration::from_micros(1)));
        assert_eq!(memory.take("k", 2, MINUTE, at(60)), None);
        assert_eq!(memory.take("k", 2, MINUTE, at(61)), Some(Duration::from_secs(29)));
        assert_eq!(memory.take("k", 1, MINUTE, at(90)), Some(Duration::from_secs(30)), "a lower limit holds at once");
        assert_eq!(memory.take("none", 0, MINUTE, at(0)), Some(MINUTE));
    }

    #[test]
    fn keys_whose_places_are_all_free_are_forgotten() {
        let memory = Memory::default();
        for n in 0..SWEEP_AT {
            memory.take(&n.to_string(), 1, MINUTE, Timestamp(0));
        }
        memory.take("late", 1, MINUTE, Timestamp(0).after(MINUTE));
        assert_eq!(memory.0.lock().unwrap().keys.len(), 1);
    }
}
