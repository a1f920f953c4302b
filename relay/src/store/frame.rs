//! A batch as the journal writes it: one frame, which says whose it is and whether it is whole.
//!
//! ```text
//! checksum[16]   XXH3-128 of everything after it, little-endian
//! magic[8]  journal[16]  segment[8]  lsn[8]  length[8]     numbers big-endian; length: of the rows, bytes
//! rows           each: space[1]  kind[1]  key length[4]  value length[4]  key  value
//! zeros          up to the next multiple of 8
//! ```
//! The checksum finds accidents, not forgers: who can write here can write the database, too. This module must never
//! trust a length before it is compared with what is there.

use bytes::{BufMut as _, Bytes, BytesMut};
use mortise_protocol::store::{Space, StoreError, Write};
use xxhash_rust::xxh3::xxh3_128;

/// What a frame begins with, before its rows, bytes.
pub(super) const HEADER_BYTES: usize = 64;
/// Frames begin at multiples of this, bytes.
pub(super) const ALIGNMENT: usize = 8;

const CHECKSUM_BYTES: usize = 16;
const MAGIC: [u8; 8] = *b"MORTJRN1";
const ROW_HEADER_BYTES: usize = 10;
const DELETE: u8 = 0;
const PUT: u8 = 1;

/// Which journal, drawn when it is made: the frames of another one are no frames of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JournalId(pub(super) [u8; 16]);

/// A batch's number; the next batch has the next one, whatever segment it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lsn(pub(super) u64);

impl Lsn {
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A segment's number, which is its file's name; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment(pub(super) u64);

impl Segment {
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Where a frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) journal: JournalId,
    pub(super) segment: Segment,
    pub(super) lsn: Lsn,
}

/// A row of a batch; key and value are parts of the frame's own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) space: Space,
    pub(super) key: Bytes,
    /// `None` deletes.
    pub(super) value: Option<Bytes>,
}

/// What the batch takes in a segment, bytes.
pub(super) fn encoded_len(writes: &[Write]) -> usize {
    let rows: usize = writes
        .iter()
        .map(|w| ROW_HEADER_BYTES + w.key.len() + w.value.as_ref().map_or(0, Vec::len))
        .sum();
    (HEADER_BYTES + rows).next_multiple_of(ALIGNMENT)
}

/// The frame of a batch.
///
/// # Errors
/// [`StoreError::Backend`] for a key or value of 4 GiB or more.
pub(super) fn encode(writes: &[Write], place: Place) -> Result<Bytes, StoreError> {
    let length = encoded_len(writes);
    let mut frame = BytesMut::with_capacity(length);
    frame.put_bytes(0, CHECKSUM_BYTES);
    frame.put_slice(&MAGIC);
    frame.put_slice(&place.journal.0);
    frame.put_u64(place.segment.0);
    frame.put_u64(place.lsn.0);
    frame.put_u64(0);
    for write in writes {
        frame.put_u8(write.space.0);
        frame.put_u8(if write.value.is_some() { PUT } else { DELETE });
        let value = write.value.as_deref().unwrap_or_default();
        frame.put_u32(short(write.key.len())?);
        frame.put_u32(short(value.len())?);
        frame.put_slice(&write.key);
        frame.put_slice(value);
    }
    let rows = frame.len() - HEADER_BYTES;
    frame[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&(rows as u64).to_be_bytes());
    frame.put_bytes(0, length - frame.len());
    let checksum = xxh3_128(&frame[CHECKSUM_BYTES..]);
    frame[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(frame.freeze())
}

fn short(length: usize) -> Result<u32, StoreError> {
    u32::try_from(length).map_err(|_| StoreError::Backend {
        reason: "a row of 4 GiB or more".into(),
    })
}

/// The whole, undamaged frame at the start of `bytes`, whatever journal and segment it says; and how long it is.
pub(super) fn read(bytes: &Bytes) -> Option<(Place, Bytes)> {
    let header = bytes.get(..HEADER_BYTES)?;
    if header[CHECKSUM_BYTES..][..MAGIC.len()] != MAGIC {
        return None;
    }
    let number = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().unwrap_or([0; 8]));
    let length = usize::try_from(number(56))
        .ok()?
        .checked_add(HEADER_BYTES)?;
    let frame = bytes.get(..length.checked_next_multiple_of(ALIGNMENT)?)?;
    let checksum = u128::from_le_bytes(header[..CHECKSUM_BYTES].try_into().ok()?);
    if xxh3_128(&frame[CHECKSUM_BYTES..]) != checksum {
        return None;
    }
    let place = Place {
        journal: JournalId(header[24..40].try_into().ok()?),
        segment: Segment(number(40)),
        lsn: Lsn(number(48)),
    };
    Some((place, bytes.slice(..frame.len())))
}

/// Where in `bytes` a whole frame of this journal and segment begins, if there is one.
pub(super) fn find(bytes: &Bytes, journal: JournalId, segment: Segment) -> Option<usize> {
    let mut needle = [0; 24];
    needle[..8].copy_from_slice(&MAGIC);
    needle[8..].copy_from_slice(&journal.0);
    let starts = (0..bytes.len()).step_by(ALIGNMENT);
    let mut starts = starts.filter(|at| {
        let from = at + CHECKSUM_BYTES;
        bytes.get(from..from + needle.len()) == Some(&needle[..])
    });
    starts.find(|at| {
        let frame = read(&bytes.slice(*at..));
        frame.is_some_and(|(place, _)| place.journal == journal && place.segment == segment)
    })
}

/// The rows of a whole frame, in the order of the batch.
///
/// # Errors
/// [`StoreError::Corrupt`] when they are not what [`encode`] makes.
pub(super) fn rows(frame: &Bytes) -> Result<Vec<Row>, StoreError> {
    const DAMAGED: StoreError = StoreError::Corrupt {
        reason: "a frame of the journal does not decode",
    };
    let length = frame.get(HEADER_BYTES - 8..HEADER_BYTES).ok_or(DAMAGED)?;
    let length = u64::from_be_bytes(length.try_into().map_err(|_| DAMAGED)?);
    let end = usize::try_from(length).map_err(|_| DAMAGED)? + HEADER_BYTES;
    let mut rows = Vec::new();
    let mut at = HEADER_BYTES;
    while at < end {
        let header = frame.get(at..at + ROW_HEADER_BYTES).ok_or(DAMAGED)?;
        let size = |at: usize| {
            header[at..at + 4]
                .iter()
                .fold(0, |n, b| n << 8 | usize::from(*b))
        };
        let key = at + ROW_HEADER_BYTES;
        let value = key + size(2);
        at = value + size(6);
        if at > end || end > frame.len() {
            return Err(DAMAGED);
        }
        rows.push(Row {
            space: Space(header[0]),
            key: frame.slice(key..value),
            value: (header[1] == PUT).then(|| frame.slice(value..at)),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        journal: JournalId([7; 16]),
        segment: Segment(3),
        lsn: Lsn(9),
    };

    fn batch() -> Vec<Write> {
        let row = |space, key: &[u8], value: Option<&[u8]>| Write {
            space: Space(space),
            key: key.to_vec(),
            value: value.map(<[u8]>::to_vec),
        };
        vec![
            row(1, b"a", Some(b"12345")),
            row(2, b"", Some(b"")),
            row(1, b"a", None),
        ]
    }

    #[test]
    fn what_is_written_reads_back() {
        let frame = encode(&batch(), PLACE).expect("encode");
        assert_eq!(frame.len(), encoded_len(&batch()));
        assert_eq!(frame.len() % ALIGNMENT, 0);
        let longer = Bytes::from([&frame[..], &[1; 99]].concat());
        assert_eq!(read(&longer), Some((PLACE, frame.clone())));
        let read: Vec<Write> = rows(&frame)
            .expect("rows")
            .into_iter()
            .map(|row| Write {
                space: row.space,
                key: row.key.to_vec(),
                value: row.value.map(|value| value.to_vec()),
            })
            .collect();
        assert_eq!(read, batch());
    }

    /// REQ-341: no part of a frame, and no frame with a changed bit, is a frame.
    #[test]
    fn no_part_and_no_changed_bit_passes() {
        let frame = encode(&batch(), PLACE).expect("encode");
        for length in 0..frame.len() {
            assert!(read(&frame.slice(..length)).is_none(), "{length}");
        }
        for bit in 0..frame.len() * 8 {
            let mut changed = frame.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&changed.into()).is_none(), "{bit}");
        }
    }

    #[test]
    fn a_frame_is_found_behind_anything_if_it_belongs_there() {
        let frame = encode(&batch(), PLACE).expect("encode");
        let behind = Bytes::from([&[0xab; 24][..], &frame].concat());
        assert_eq!(find(&behind, PLACE.journal, PLACE.segment), Some(24));
        assert_eq!(find(&behind, JournalId([8; 16]), PLACE.segment), None);
        assert_eq!(find(&behind, PLACE.journal, Segment(4)), None);
        let cut = behind.slice(..behind.len() - 1);
        assert_eq!(find(&cut, PLACE.journal, PLACE.segment), None);
    }
}
