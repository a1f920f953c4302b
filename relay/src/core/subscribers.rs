//! Who reads which group: changed in place for every record, and put back if the batch fails.

use std::collections::BTreeMap;

use mortise_protocol::identity::GroupId;

use super::ConnId;
use super::connections::Subscription;

/// One group's subscriptions, by connection.
type Readers = Vec<(ConnId, Subscription)>;

/// Every subscription, by group, with one level of undo.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    by_group: BTreeMap<GroupId, Readers>,
    /// What the batch has changed, as it was.
    before: BTreeMap<GroupId, Readers>,
    len: usize,
    len_before: usize,
}

impl Subscribers {
    pub(super) fn of(&self, group: GroupId) -> &[(ConnId, Subscription)] {
        self.by_group.get(&group).map_or(&[], Vec::as_slice)
    }

    pub(super) fn at(&self, group: GroupId, conn: ConnId) -> Option<Subscription> {
        let readers = self.of(group);
        let at = place(readers, conn).ok()?;
        readers.get(at).map(|(_, subscription)| *subscription)
    }

    /// A group's subscriptions, to be changed in place: nothing is looked up for each of them.
    pub(super) fn of_mut(
        &mut self,
        group: GroupId,
    ) -> impl Iterator<Item = (ConnId, &mut Subscription)> {
        self.remember(group);
        let readers = self.by_group.get_mut(&group);
        let readers = readers.into_iter().flatten();
        readers.map(|(conn, subscription)| (*conn, subscription))
    }

    pub(super) fn set(&mut self, group: GroupId, conn: ConnId, subscription: Subscription) {
        self.remember(group);
        let readers = self.by_group.entry(group).or_default();
        match place(readers, conn) {
            Ok(at) => readers[at].1 = subscription,
            Err(at) => {
                readers.insert(at, (conn, subscription));
                self.len += 1;
            }
        }
    }

    pub(super) fn remove(&mut self, group: GroupId, conn: ConnId) {
        if self.at(group, conn).is_none() {
            return;
        }
        self.remember(group);
        if let Some(readers) = self.by_group.get_mut(&group)
            && let Ok(at) = place(readers, conn)
        {
            readers.remove(at);
            self.len -= 1;
            if readers.is_empty() {
                self.by_group.remove(&group);
            }
        }
    }

    /// Every group that somebody reads.
    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.by_group.keys().copied()
    }

    fn remember(&mut self, group: GroupId) {
        let before = || self.by_group.get(&group).cloned().unwrap_or_default();
        self.before.entry(group).or_insert_with(before);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The batch is durable.
    pub(super) fn keep(&mut self) {
        self.before.clear();
        self.len_before = self.len;
    }

    /// The batch never was.
    pub(super) fn revert(&mut self) {
        for (group, readers) in std::mem::take(&mut self.before) {
            if readers.is_empty() {
                self.by_group.remove(&group);
            } else {
                self.by_group.insert(group, readers);
            }
        }
        self.len = self.len_before;
    }
}

/// Where a connection is, or belongs.
fn place(readers: &[(ConnId, Subscription)], conn: ConnId) -> Result<usize, usize> {
    readers.binary_search_by_key(&conn, |(conn, _)| *conn)
}

#[cfg(test)]
mod tests {
    use mortise_protocol::identity::{Epoch, LogSeq};

    use super::*;
    use crate::core::StreamId;

    const GROUP: GroupId = GroupId([1; 32]);

    fn subscription(next: u64) -> Subscription {
        Subscription {
            epoch: Epoch(0),
            next_seq: LogSeq(next),
            credit: 9,
            stream: StreamId(1),
            awaits_restart: false,
            pulls: false,
        }
    }

    fn positions(subscribers: &Subscribers) -> Vec<(u64, u64)> {
        let of = subscribers.of(GROUP).iter();
        of.map(|(conn, s)| (conn.0, s.next_seq.0)).collect()
    }

    #[test]
    fn they_are_in_order_and_each_is_there_once() {
        let mut subscribers = Subscribers::default();
        for (conn, next) in [(3, 1), (1, 1), (2, 1), (3, 7)] {
            subscribers.set(GROUP, ConnId(conn), subscription(next));
        }
        assert_eq!(positions(&subscribers), [(1, 1), (2, 1), (3, 7)]);
        assert_eq!(subscribers.len(), 3);
        subscribers.remove(GROUP, ConnId(9));
        subscribers.remove(GROUP, ConnId(1));
        assert_eq!((positions(&subscribers).len(), subscribers.len()), (2, 2));
    }

    #[test]
    fn a_batch_that_never_was_leaves_them_as_they_were() {
        let mut subscribers = Subscribers::default();
        subscribers.set(GROUP, ConnId(1), subscription(1));
        subscribers.set(GROUP, ConnId(2), subscription(1));
        subscribers.keep();
        for (_, subscription) in subscribers.of_mut(GROUP) {
            subscription.next_seq = LogSeq(8);
        }
        subscribers.remove(GROUP, ConnId(1));
        subscribers.remove(GROUP, ConnId(2));
        let other = GroupId([2; 32]);
        subscribers.set(other, ConnId(1), subscription(1));
        subscribers.revert();
        assert_eq!(positions(&subscribers), [(1, 1), (2, 1)]);
        assert_eq!((subscribers.len(), subscribers.of(other).len()), (2, 0));
    }
}
