//! Many callers, one statement: what is asked for while a statement is on its way goes out together with the next one, and callers who
//! have gone together are waited for, for a moment, to come again together. Alone, a caller goes at once.
use std::{
    collections::{HashSet, VecDeque},
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::{Notify, oneshot};

use crate::{
    error::{Error, Result},
    tasks,
};

/// So long as many are waited for as went together last. Clients that wait for their answers come again at about the same time: the first
/// of them, if it went alone, would make all others wait for its commit.
const LINGER: Duration = Duration::from_millis(1);

/// What can be asked for together.
#[async_trait]
pub trait Together: Send + Sync + 'static {
    type Item: Send + Sync + 'static;
    type Answer: Send + 'static;
    type Key: Eq + Hash + Send;

    /// Two items of one key are never asked for at once: the second would wait for the first's locks, and all that go with it.
    fn key(item: &Self::Item) -> Option<Self::Key>;

    /// One answer an item, in their order.
    async fn ask(&self, items: &[Self::Item]) -> Vec<Result<Self::Answer>>;
}

pub struct Group<T: Together>(Arc<Inner<T>>);

impl<T: Together> Clone for Group<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<T: Together> {
    together: T,
    /// So many are on their way at once, each with at most `most` items.
    at_once: usize,
    most: usize,
    linger: Duration,
    state: Mutex<State<T>>,
    /// As many wait as are waited for.
    enough: Notify,
}

struct State<T: Together> {
    waiting: VecDeque<Waiting<T>>,
    on_their_way: usize,
    /// Of the items that are on their way.
    keys: HashSet<T::Key>,
    /// One of those on their way has its answers, and waits for so many callers.
    awaited: Option<usize>,
}

struct Waiting<T: Together> {
    item: T::Item,
    answer: oneshot::Sender<Result<T::Answer>>,
}

impl<T: Together> Group<T> {
    pub fn new(together: T, at_once: usize, most: usize) -> Self {
        Self::lingering(together, at_once, most, LINGER)
    }

    fn lingering(together: T, at_once: usize, most: usize, linger: Duration) -> Self {
        let state = Mutex::new(State { waiting: VecDeque::new(), on_their_way: 0, keys: HashSet::new(), awaited: None });
        Self(Arc::new(Inner { together, at_once, most, linger, state, enough: Notify::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was asked for before this call began has no part in its answer. Who gives up waiting has asked all the same.
    pub async fn ask(&self, item: T::Item) -> Result<T::Answer> {
        let (answer, answered) = oneshot::channel();
        if self.enter(Waiting { item, answer }) {
            tasks::spawn("a group", self.clone().go());
        }
        answered.await.map_err(|_| Error::internal("a group ended without an answer"))?
    }

    /// Whether one more may be on its way.
    fn enter(&self, waiting: Waiting<T>) -> bool {
        let mut state = self.lock();
        state.waiting.push_back(waiting);
        if let Some(awaited) = state.awaited {
            if state.waiting.len() >= awaited {
                self.0.enough.notify_one();
            }
            return false;
        }
        let more = state.on_their_way < self.0.at_once;
        state.on_their_way += usize::from(more);
        more
    }

    async fn go(self) {
        let mut last = 0;
        while let Some(next) = self.next(last).await {
            last = next.len();
            let (items, callers): (Vec<_>, Vec<_>) = next.into_iter().map(|w| (w.item, w.answer)).unzip();
            // A panic leaves its callers without an answer, and not those that come after them.
            let answers = AssertUnwindSafe(self.0.together.ask(&items)).catch_unwind().await.unwrap_or_default();
            self.arrived(&items);
            for (caller, answer) in callers.into_iter().zip(answers) {
                caller.send(answer).ok();
            }
        }
    }

    fn arrived(&self, items: &[T::Item]) {
        let keys = &mut self.lock().keys;
        for key in items.iter().filter_map(T::key) {
            keys.remove(&key);
        }
    }

    /// Those that can go together. None is left behind: who cannot go now is waiting for one that is on its way, and goes after it.
    async fn next(&self, last: usize) -> Option<Vec<Waiting<T>>> {
        self.linger(last).await;
        let mut guard = self.lock();
        let state = &mut *guard;
        let (mut next, mut later) = (Vec::new(), VecDeque::new());
        while next.len() < self.0.most
            && let Some(waiting) = state.waiting.pop_front()
        {
            let alone = T::key(&waiting.item).is_none_or(|key| state.keys.insert(key));
            if alone { next.push(waiting) } else { later.push_back(waiting) }
        }
        later.append(&mut state.waiting);
        state.waiting = later;
        if next.is_empty() {
            state.on_their_way -= 1;
            return None;
        }
        Some(next)
    }

    /// Waits until as many wait as went together last, or for a moment; not when another one does so.
    async fn linger(&self, last: usize) {
        {
            let mut state = self.lock();
            if last <= 1 || state.awaited.is_some() || state.waiting.len() >= last {
                return;
            }
            state.awaited = Some(last);
        }
        tokio::time::timeout(self.0.linger, self.0.enough.notified()).await.ok();
        self.lock().awaited = None;
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Doubles numbers; tens share a key, 13 panics, and everything waits for the gate.
    #[derive(Clone)]
    struct Doubling {
        gate: Arc<Semaphore>,
        groups: Arc<Mutex<Vec<Vec<u32>>>>,
    }

    #[async_trait]
    impl Together for Doubling {
        type Item = u32;
        type Answer = u32;
        type Key = u32;

        fn key(item: &u32) -> Option<u32> {
            item.is_multiple_of(10).then_some(0)
        }

        async fn ask(&self, items: &[u32]) -> Vec<Result<u32>> {
            self.groups.lock().unwrap().push(items.to_vec());
            self.gate.acquire().await.unwrap().forget();
            assert!(!items.contains(&13));
            items.iter().map(|n| Ok(n * 2)).collect()
        }
    }

    fn doubling(at_once: usize, most: usize) -> (Group<Doubling>, Doubling) {
        let together = Doubling { gate: Arc::new(Semaphore::new(0)), groups: Arc::default() };
        (Group::new(together.clone(), at_once, most), together)
    }

    /// With an open gate.
    fn lingering(linger: Duration) -> (Group<Doubling>, Doubling) {
        let together = Doubling { gate: Arc::new(Semaphore::new(100)), groups: Arc::default() };
        (Group::lingering(together.clone(), 1, 10, linger), together)
    }

    /// Asks for each in turn, and opens the gate once all wait.
    async fn asked(group: &Group<Doubling>, together: &Doubling, items: &[u32]) -> Vec<Result<u32>> {
        let all = join_all(items.iter().map(|n| group.ask(*n)));
        let open = async {
            while group.lock().waiting.len() + together.groups.lock().unwrap().iter().map(Vec::len).sum::<usize>() < items.len() {
                tokio::task::yield_now().await;
            }
            together.gate.add_permits(items.len());
        };
        tokio::join!(all, open).0
    }

    #[tokio::test]
    async fn those_that_wait_go_together_in_their_order() {
        let (group, together) = doubling(1, 3);
        let answers = asked(&group, &together, &[1, 2, 3, 4, 5]).await;
        assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [2, 4, 6, 8, 10]);
        let groups = together.groups.lock().unwrap().clone();
        assert!(groups.iter().all(|g| g.len() <= 3) && groups.len() < 5, "{groups:?}");
        assert_eq!(groups.concat(), [1, 2, 3, 4, 5]);
        while group.lock().on_their_way > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn two_of_one_key_never_go_together() {
        let (group, together) = doubling(1, 10);
        asked(&group, &together, &[1, 10, 2, 20, 3, 30]).await;
        let groups = together.groups.lock().unwrap().clone();
        assert!(groups.iter().all(|g| g.iter().filter(|n| n.is_multiple_of(10)).count() <= 1), "{groups:?}");
        let tens: Vec<_> = groups.concat().into_iter().filter(|n| n.is_multiple_of(10)).collect();
        assert_eq!(tens, [10, 20, 30]);
    }

    #[tokio::test]
    async fn one_of_a_key_that_is_on_its_way_waits_for_it_and_no_others_do() {
        let (group, together) = doubling(2, 1);
        let all = join_all([10, 20, 1].map(|n| group.ask(n)));
        let open = async {
            while together.groups.lock().unwrap().len() < 2 {
                tokio::task::yield_now().await;
            }
            together.gate.add_permits(3);
        };
        let (answers, ()) = tokio::join!(all, open);
        assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [20, 40, 2]);
        assert_eq!(together.groups.lock().unwrap().concat(), [10, 1, 20]);
        assert!(group.lock().keys.is_empty());
    }

    #[tokio::test]
    async fn who_went_together_is_waited_for_to_go_together_again() {
        let (group, together) = lingering(Duration::from_secs(600));
        asked(&group, &together, &[1, 2, 3]).await;
        let last = together.groups.lock().unwrap().last().unwrap().len();
        let again: Vec<_> = (4..).take(last).collect();
        let one_by_one = again.iter().map(|n| async {
            for _ in 4..*n {
                tokio::task::yield_now().await;
            }
            group.ask(*n).await.unwrap();
        });
        join_all(one_by_one).await;
        assert!(last > 1);
        assert_eq!(*together.groups.lock().unwrap().last().unwrap(), again);
    }

    #[tokio::test]
    async fn who_does_not_come_again_is_not_waited_for_long() {
        let (group, together) = lingering(Duration::from_millis(1));
        asked(&group, &together, &[1, 2, 3]).await;
        assert_eq!((group.ask(4).await.unwrap(), group.ask(5).await.unwrap()), (8, 10));
        assert_eq!(*together.groups.lock().unwrap().last().unwrap(), [5]);
    }

    #[tokio::test]
    async fn a_panic_answers_its_own_callers_only() {
        let (group, together) = doubling(1, 1);
        let answers = asked(&group, &together, &[13, 4]).await;
        assert!(answers[0].is_err());
        assert_eq!(*answers[1].as_ref().unwrap(), 8);
        assert_eq!(asked(&group, &together, &[13]).await.len(), 1);
        together.gate.add_permits(1);
        assert_eq!(group.ask(5).await.unwrap(), 10);
    }
}
