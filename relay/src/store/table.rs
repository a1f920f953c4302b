//! Rows that are durable in the journal and not yet in the database, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use mortise_protocol::store::Space;

use super::frame::Row;

/// A row's newest value; `None` for one that was deleted.
pub(super) type Value = Option<Bytes>;

/// Rows by table and key. What they point into is the frames that they came in.
#[derive(Debug, Default)]
pub(super) struct Table {
    spaces: BTreeMap<Space, BTreeMap<Bytes, Value>>,
    bytes: usize,
}

impl Table {
    /// Takes the rows of one frame, later ones over earlier ones.
    pub(super) fn take(&mut self, rows: Vec<Row>, frame_bytes: usize) {
        for row in rows {
            let space = self.spaces.entry(row.space).or_default();
            space.insert(row.key, row.value);
        }
        self.bytes += frame_bytes;
    }

    /// What the frames take, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The row, if it is known here.
    pub(super) fn at(&self, space: Space, key: &[u8]) -> Option<&Value> {
        self.spaces.get(&space)?.get(key)
    }

    /// The rows of a table from `from` on, in key order.
    pub(super) fn from<'t>(
        &'t self,
        space: Space,
        from: &'t [u8],
    ) -> impl Iterator<Item = (&'t [u8], &'t Value)> {
        let rows = self.spaces.get(&space).into_iter();
        let rows = rows
            .flat_map(move |rows| rows.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)));
        rows.map(|(key, value)| (&key[..], value))
    }

    /// Every row, in the order of tables and keys.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Space, &[u8], Option<&[u8]>)> {
        self.spaces.iter().flat_map(|(space, rows)| {
            let rows = rows.iter();
            rows.map(move |(key, value)| (*space, &key[..], value.as_deref()))
        })
    }
}

/// One sequence of rows over another: where both have a key, the upper one's counts.
pub(super) fn over<'r>(
    upper: impl Iterator<Item = (&'r [u8], &'r Value)>,
    lower: impl Iterator<Item = (&'r [u8], &'r Value)>,
) -> impl Iterator<Item = (&'r [u8], &'r Value)> {
    let (mut upper, mut lower) = (upper.peekable(), lower.peekable());
    std::iter::from_fn(move || match (upper.peek(), lower.peek()) {
        (Some((above, _)), Some((below, _))) if above == below => {
            lower.next();
            upper.next()
        }
        (Some((above, _)), Some((below, _))) if above > below => lower.next(),
        (None, _) => lower.next(),
        _ => upper.next(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&'static [u8], Option<&'static [u8]>)]) -> Table {
        let mut table = Table::default();
        let rows = rows.iter().map(|(key, value)| Row {
            space: Space(1),
            key: Bytes::from_static(key),
            value: value.map(Bytes::from_static),
        });
        table.take(rows.collect(), 1);
        table
    }

    #[test]
    fn the_upper_of_two_counts_and_nothing_is_left_out() {
        let upper = table(&[(b"b", None), (b"d", Some(b"4"))]);
        let lower = table(&[(b"a", Some(b"1")), (b"b", Some(b"2")), (b"c", Some(b"3"))]);
        let space = Space(1);
        let both = over(upper.from(space, b""), lower.from(space, b""));
        let both: Vec<_> = both.map(|(k, v)| (k, v.as_deref())).collect();
        let expected: [(&[u8], Option<&[u8]>); 4] = [
            (b"a", Some(b"1")),
            (b"b", None),
            (b"c", Some(b"3")),
            (b"d", Some(b"4")),
        ];
        assert_eq!(both, expected);
        assert_eq!(upper.from(space, b"c").count(), 1);
        assert_eq!(upper.from(Space(2), b"").count(), 0);
    }
}
