//! Who sends what to whom: the same for every system that a bench compares.

use crate::bench::sample::Durations;

/// Bytes of every record.
pub(super) const RECORD_BYTES: usize = 1_024;

/// A load: closed loops, so that no system is asked for more than it answers.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The connections of each group, by number; every connection is one device.
    pub(super) groups: Vec<Vec<usize>>,
    /// Who sends, and to which group.
    pub(super) senders: Vec<(usize, usize)>,
    /// Messages of one sender that wait for their acknowledgement.
    pub(super) in_flight: usize,
    /// Messages of each sender in one round.
    pub(super) messages: usize,
}

impl Plan {
    /// One group of 50, one sender that keeps 64 in flight.
    pub(super) fn firehose(messages: usize) -> Self {
        Self {
            groups: vec![(0..50).collect()],
            senders: vec![(0, 0)],
            in_flight: 64,
            messages,
        }
    }

    /// 200 groups of 10 over 200 devices, each of which sends to a group of its own.
    pub(super) fn rooms(messages: usize) -> Self {
        const DEVICES: usize = 200;
        // Strides without a common divisor: no two groups have the same members.
        let members = |group: usize| (0..10).map(|n| (group + n * 7) % DEVICES).collect();
        Self {
            groups: (0..DEVICES).map(members).collect(),
            senders: (0..DEVICES).map(|n| (n, n)).collect(),
            in_flight: 1,
            messages,
        }
    }

    /// One group of 50, one message at a time.
    pub(super) fn latency(messages: usize) -> Self {
        Self {
            in_flight: 1,
            ..Self::firehose(messages)
        }
    }

    /// How many connections there are.
    pub(super) fn connections(&self) -> usize {
        let members = self.groups.iter().flatten();
        members.max().map_or(0, |last| last + 1)
    }

    /// The groups that a connection is in.
    pub(super) fn groups_of(&self, connection: usize) -> Vec<usize> {
        let groups = self.groups.iter().enumerate();
        let of = groups.filter(|(_, members)| members.contains(&connection));
        of.map(|(group, _)| group).collect()
    }

    /// The groups that a connection sends to.
    pub(super) fn sends_to(&self, connection: usize) -> Vec<usize> {
        let senders = self.senders.iter();
        let of = senders.filter(|(sender, _)| *sender == connection);
        of.map(|(_, group)| *group).collect()
    }

    /// How many records reach a connection in one round.
    pub(super) fn expected_at(&self, connection: usize) -> usize {
        let senders = self.senders.iter();
        let heard = senders.filter(|(_, group)| self.groups[*group].contains(&connection));
        heard.count() * self.messages
    }
}

/// What one connection saw in one round, µs.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// From sending to the acknowledgement, one per message sent.
    pub(super) acks: Vec<u64>,
    /// From sending to the arrival, one per record received.
    pub(super) delays: Vec<u64>,
}

/// What one system needed for one round.
#[derive(Clone, Debug, Default)]
pub(super) struct Round {
    /// Wall-clock time, s.
    pub(super) seconds: f64,
    /// The server's processor time, µs.
    pub(super) cpu_us: u64,
    /// Everybody's acknowledgements, µs.
    pub(super) acks: Durations,
    /// Everybody's arrivals, µs.
    pub(super) delays: Durations,
}

impl Round {
    /// Adds up what everybody saw.
    pub(super) fn of(seen: Vec<Seen>, seconds: f64, cpu_us: u64) -> Self {
        let acks = seen.iter().flat_map(|s| s.acks.iter().copied());
        let delays = seen.iter().flat_map(|s| s.delays.iter().copied());
        Self {
            seconds,
            cpu_us,
            acks: Durations::of(acks),
            delays: Durations::of(delays),
        }
    }

    /// Records that arrived anywhere.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn deliveries(&self) -> f64 {
        self.delays.count() as f64
    }

    /// Arrivals per second.
    pub(super) fn rate(&self) -> f64 {
        self.deliveries() / self.seconds
    }

    /// The server's processor time per arrival, µs.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn cpu_per_delivery(&self) -> f64 {
        self.cpu_us as f64 / self.deliveries()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_is_what_its_name_says() {
        let rooms = Plan::rooms(3);
        assert_eq!((rooms.groups.len(), rooms.connections()), (200, 200));
        for connection in 0..200 {
            assert_eq!(rooms.groups_of(connection).len(), 10);
            assert_eq!(rooms.sends_to(connection), [connection]);
            assert_eq!(rooms.expected_at(connection), 30);
        }
        let firehose = Plan::firehose(7);
        assert_eq!((firehose.connections(), firehose.in_flight), (50, 64));
        assert_eq!(firehose.expected_at(49), 7);
        assert!(firehose.sends_to(1).is_empty());
        assert_eq!(Plan::latency(7).in_flight, 1);
    }
}
