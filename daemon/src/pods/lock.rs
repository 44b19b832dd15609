//! A lock per key: holders of one key take turns in the order in which they asked; others never
//! meet. A key that nobody holds or waits for takes no room.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The locks. Clones share them.
#[derive(Debug)]
pub(super) struct KeyedLock<K: Eq + Hash> {
    entries: Entries<K>,
}

type Entries<K> = Arc<Mutex<HashMap<K, Entry>>>;

#[derive(Debug, Default)]
struct Entry {
    lock: Arc<AsyncMutex<()>>,
    /// Holders and waiters.
    tickets: usize,
}

/// Holds one key.
#[derive(Debug)]
pub(super) struct Guard<K: Eq + Hash> {
    // Dropped in this order: the next in line wakes before the entry may go.
    _turn: OwnedMutexGuard<()>,
    _ticket: Ticket<K>,
}

#[derive(Debug)]
struct Ticket<K: Eq + Hash> {
    entries: Entries<K>,
    key: K,
}

impl<K: Eq + Hash> Default for KeyedLock<K> {
    fn default() -> Self {
        Self { entries: Arc::default() }
    }
}

impl<K: Clone + Eq + Hash> KeyedLock<K> {
    /// Waits for the turn. A caller that stops waiting leaves the line.
    pub(super) async fn lock(&self, key: K) -> Guard<K> {
        let (lock, ticket) = self.enter(key);
        Guard { _turn: lock.lock_owned().await, _ticket: ticket }
    }

    fn enter(&self, key: K) -> (Arc<AsyncMutex<()>>, Ticket<K>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(key.clone()).or_default();
        entry.tickets += 1;
        (Arc::clone(&entry.lock), Ticket { entries: Arc::clone(&self.entries), key })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }
}

impl<K: Eq + Hash> Drop for Ticket<K> {
    fn drop(&mut self) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = entries.get_mut(&self.key) else { return };
        entry.tickets -= 1;
        if entry.tickets == 0 {
            entries.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_key_is_held_once_and_others_do_not_meet() {
        let locks = KeyedLock::default();
        let first = locks.lock("a").await;
        assert!(locks.lock("a").now_or_never().is_none());
        assert!(locks.lock("b").now_or_never().is_some());
        drop(first);
        assert!(locks.lock("a").now_or_never().is_some());
    }

    #[tokio::test]
    async fn turns_come_in_the_order_asked_for() {
        let locks = KeyedLock::default();
        let first = locks.lock("a").await;
        let mut second = Box::pin(locks.lock("a"));
        let mut third = Box::pin(locks.lock("a"));
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        assert!(futures::poll!(&mut third).is_pending());
        let second = second.now_or_never().expect("its turn");
        drop(second);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_key_that_nobody_wants_takes_no_room() {
        let locks = KeyedLock::default();
        let held = locks.lock("a").await;
        let mut waiting = Box::pin(locks.lock("a"));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(locks.len(), 1);
        drop(waiting);
        assert_eq!(locks.len(), 1);
        drop(held);
        assert_eq!(locks.len(), 0);
    }

    #[tokio::test]
    async fn who_stops_waiting_holds_nobody_up() {
        let locks = KeyedLock::default();
        let first = locks.lock("a").await;
        let mut gone = Box::pin(locks.lock("a"));
        assert!(futures::poll!(&mut gone).is_pending());
        let mut third = Box::pin(locks.lock("a"));
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        drop(gone);
        assert!(third.now_or_never().is_some());
    }
}
