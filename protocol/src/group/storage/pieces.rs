//! Large entities in pieces, so that a small change of one is a small write.
//!
//! The ratchet tree of a thousand members is hundreds of kilobytes, and a commit changes ten of its nodes; the secret tree
//! is tens of kilobytes, and a message changes one ratchet. openmls hands over the whole each time. Here its bytes are
//! cut where their content says so (a rolling hash over the last 64 octets), so that an insertion moves no cut but those
//! beside it; each piece is a row named by its hash, and the entity's own row lists the names in order. Only pieces
//! whose name is not in the list before are written, and those that have left the list are erased, with the secrets
//! that they held.
//!
//! This module must never keep a piece that the list does not name.

use std::collections::BTreeSet;

use super::rows::{MlsStorageError, Result, Row};
use super::{MLS, MlsStorage};
use crate::identity::sha256;

/// The version byte of a list of pieces.
pub(super) const LISTED: u8 = 2;
/// Entities up to this many octets are one row.
const WHOLE: usize = 2_048;
/// The least and the most octets of a piece; on average about 1 KiB. The less is passed over, the sooner cuts find
/// themselves again behind a change.
const LEAST: usize = 64;
const MOST: usize = 4_096;
/// A cut is where these bits of the rolling hash are zero.
const CUT: u64 = 0x3FF << 54;
/// Octets of a piece's name. Members choose what is in the tree: two pieces of one name would take 2^64 tries.
const NAME: usize = 16;

type Name = [u8; NAME];

/// What each octet adds to the rolling hash: any fixed numbers without a pattern (splitmix64 of 0 to 255).
const GEAR: [u64; 256] = {
    let mut gear = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut z = (at as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        gear[at] = z ^ (z >> 31);
        at += 1;
    }
    gear
};

/// Whether entities of this kind are kept in pieces.
pub(super) fn is_in_pieces(row: Row) -> bool {
    matches!(row, Row::Tree | Row::MessageSecrets)
}

/// Cuts octets into pieces, all of them and in order.
fn cut(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::with_capacity(bytes.len() / 1_024 + 1);
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(next_cut(bytes));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn next_cut(bytes: &[u8]) -> usize {
    let most = bytes.len().min(MOST);
    let mut hash = 0_u64;
    for (at, octet) in bytes.iter().enumerate().take(most).skip(LEAST) {
        // Each step shifts what came before by one bit: 64 octets on, nothing of it is left.
        hash = (hash << 1).wrapping_add(GEAR[usize::from(*octet)]);
        if hash & CUT == 0 {
            return at + 1;
        }
    }
    most
}

fn name_of(piece: &[u8]) -> Name {
    let mut name = [0; NAME];
    name.copy_from_slice(&sha256(piece).0[..NAME]);
    name
}

/// The names in a list, which follow its version byte.
fn names(list: &[u8]) -> Option<Vec<Name>> {
    let (&LISTED, names) = list.split_first()? else {
        return None;
    };
    let (names, []) = names.as_chunks::<NAME>() else {
        return None;
    };
    Some(names.to_vec())
}

fn piece_key(key: &[u8], name: &Name) -> Vec<u8> {
    let mut piece = key.to_vec();
    piece[0] |= Row::PIECE;
    piece.extend_from_slice(name);
    piece
}

impl MlsStorage<'_, '_> {
    /// Stores an entity's octets, version byte included, below `key`.
    pub(super) fn put_pieces(&self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        let before = self.listed(&key)?;
        if value.len() <= WHOLE {
            self.forget_pieces(&key, &before, &BTreeSet::new());
            self.tx.put(MLS, key, value);
            return Ok(());
        }
        let known: BTreeSet<Name> = before.iter().copied().collect();
        let mut list = vec![LISTED];
        let mut now = BTreeSet::new();
        for piece in cut(&value) {
            let name = name_of(piece);
            list.extend_from_slice(&name);
            if now.insert(name) && !known.contains(&name) {
                self.tx.put(MLS, piece_key(&key, &name), piece);
            }
        }
        self.forget_pieces(&key, &before, &now);
        self.tx.put(MLS, key, list);
        Ok(())
    }

    /// The octets of an entity that [`Self::put_pieces`] has stored, or that an older version stored as one row.
    pub(super) fn load_pieces(&self, row: Row, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(value) = self.tx.get(MLS, key)? else {
            return Ok(None);
        };
        if value.first() != Some(&LISTED) {
            return Ok(Some(value));
        }
        let damaged = MlsStorageError::Damaged { row };
        let Some(names) = names(&value) else {
            return Err(damaged);
        };
        let mut first = key.to_vec();
        first[0] |= Row::PIECE;
        let rows = self.tx.scan(MLS, &first)?;
        let mut whole = Vec::new();
        for name in names {
            let named = |(key, _): &(Vec<u8>, Vec<u8>)| key[first.len()..].cmp(&name[..]);
            match rows.binary_search_by(named) {
                Ok(at) => whole.extend_from_slice(&rows[at].1),
                Err(_) => return Err(damaged),
            }
        }
        Ok(Some(whole))
    }

    /// Erases an entity and its pieces.
    pub(super) fn erase_pieces(&self, key: Vec<u8>) -> Result<()> {
        let before = self.listed(&key)?;
        self.forget_pieces(&key, &before, &BTreeSet::new());
        self.tx.delete(MLS, key);
        Ok(())
    }

    /// The pieces that an entity has now.
    fn listed(&self, key: &[u8]) -> Result<Vec<Name>> {
        let list = self.tx.get(MLS, key)?;
        Ok(list.as_deref().and_then(names).unwrap_or_default())
    }

    fn forget_pieces(&self, key: &[u8], before: &[Name], now: &BTreeSet<Name>) {
        for name in before.iter().filter(|name| !now.contains(*name)) {
            self.tx.delete(MLS, piece_key(key, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::RngCore as _;
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;
    use crate::store::{MemoryStore, Store as _, Tx};

    const KEY: [u8; 5] = [Row::Tree as u8, 1, 2, 3, 4];
    const SEED: u64 = 0x0371;

    /// Stores a value in a transaction of its own; how many rows and octets were written.
    fn write(store: &mut MemoryStore, value: Option<&[u8]>) -> (usize, usize) {
        let batch = {
            let tx = Tx::new(store);
            let storage = MlsStorage { tx: &tx };
            match value {
                Some(value) => storage.put_pieces(KEY.to_vec(), value.to_vec()),
                None => storage.erase_pieces(KEY.to_vec()),
            }
            .expect("write");
            tx.into_batch().expect("batch")
        };
        let octets = batch.iter().filter_map(|w| Some(w.value.as_ref()?.len()));
        let size = (batch.len(), octets.sum());
        store.apply(&batch).expect("apply");
        size
    }

    fn read(store: &MemoryStore) -> Option<Vec<u8>> {
        let tx = Tx::new(store);
        let storage = MlsStorage { tx: &tx };
        storage.load_pieces(Row::Tree, &KEY).expect("read")
    }

    fn rows(store: &MemoryStore) -> usize {
        Tx::new(store).scan(MLS, &[]).expect("scan").len()
    }

    /// REQ-071: whatever is inserted, changed or cut out anywhere, little is written, and what is read is what was
    /// stored.
    #[test]
    fn a_small_change_is_a_small_write() {
        let mut rng = ChaCha12Rng::seed_from_u64(SEED);
        let mut store = MemoryStore::default();
        let mut value = vec![0; 200_000];
        rng.fill_bytes(&mut value);
        value[0] = super::super::rows::FORMAT;
        // What a tree is mostly made of when it is new: the same again and again.
        value[50_000..120_000].fill(0);
        let first = write(&mut store, Some(&value));
        assert!(first.0 > 50);
        let mut all = (0, 0);
        for round in 0..100_usize {
            let at = 1 + (rng.next_u32() as usize) % (value.len() - 100);
            match round % 3 {
                0 => value[at] ^= 1,
                1 => drop(value.splice(at..at, [7; 40])),
                _ => drop(value.splice(at..at + 40, [])),
            }
            let (rows, octets) = write(&mut store, Some(&value));
            assert!(
                rows < 40 && octets < 60_000,
                "round {round}: {rows}, {octets}"
            );
            all = (all.0 + rows, all.1 + octets);
            assert_eq!(read(&store).as_ref(), Some(&value));
        }
        // Of 200,000 octets; 4 KiB of them are the list.
        assert!(all.0 < 800 && all.1 < 1_000_000, "{all:?}");
        assert_eq!(write(&mut store, Some(&value)), (0, 0));
        assert!(write(&mut store, None).0 > 50);
        assert_eq!((read(&store), rows(&store)), (None, 0));
    }

    /// A value that shrinks to one row, and one that an older version wrote as one row, leave nothing behind.
    #[test]
    fn one_row_and_many_give_way_to_each_other() {
        let mut store = MemoryStore::default();
        let small = vec![1; WHOLE];
        let large: Vec<u8> = (0..50_000_u32)
            .map(|n| ((n * n) >> 3).to_le_bytes()[0] | 1)
            .collect();
        for value in [&small, &large, &small, &large] {
            write(&mut store, Some(value));
            assert_eq!(read(&store).as_ref(), Some(value));
        }
        write(&mut store, Some(&small));
        assert_eq!(rows(&store), 1);
        let old = [&[1][..], &large].concat();
        let row = crate::store::Write {
            space: MLS,
            key: KEY.to_vec(),
            value: Some(old.clone()),
        };
        store.apply(&[row]).expect("apply");
        assert_eq!(read(&store), Some(old));
        write(&mut store, Some(&large));
        assert_eq!(read(&store), Some(large));
    }

    /// A piece that is gone is damage, not a shorter tree.
    #[test]
    fn a_missing_piece_is_noticed() {
        let mut store = MemoryStore::default();
        let mut value = vec![0; 20_000];
        ChaCha12Rng::seed_from_u64(SEED).fill_bytes(&mut value);
        write(&mut store, Some(&value));
        let pieces = Tx::new(&store).scan(MLS, &[KEY[0] | Row::PIECE]);
        let (key, _) = pieces.expect("scan").swap_remove(3);
        let row = crate::store::Write {
            space: MLS,
            key,
            value: None,
        };
        store.apply(&[row]).expect("apply");
        let tx = Tx::new(&store);
        let storage = MlsStorage { tx: &tx };
        let read = storage.load_pieces(Row::Tree, &KEY);
        assert!(matches!(
            read,
            Err(MlsStorageError::Damaged { row: Row::Tree })
        ));
    }

    /// Cuts are made by content: two values with a common middle share its pieces.
    #[test]
    fn cuts_find_themselves_again() {
        let mut middle = vec![0; 30_000];
        ChaCha12Rng::seed_from_u64(SEED).fill_bytes(&mut middle);
        let of = |start: &[u8]| -> BTreeSet<Name> {
            let whole = [start, &middle[..]].concat();
            let pieces = cut(&whole);
            assert_eq!(pieces.concat(), whole);
            assert!(pieces.iter().all(|p| p.len() <= MOST));
            pieces.into_iter().map(name_of).collect()
        };
        let (one, other) = (of(&[1; 700]), of(&[2; 9]));
        assert!(one.intersection(&other).count() + 4 > one.len().max(other.len()));
    }
}
