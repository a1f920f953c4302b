//! Decisions out of a fuzzer's bytes.

/// Bytes that are used up from the front; when they are, every decision is 0.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// Decisions out of these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether none are left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// A number below `n`, which is at most 256; 0 if `n` is.
    pub fn below(&mut self, n: usize) -> usize {
        match n {
            0 => 0,
            n => usize::from(self.byte()) % n,
        }
    }

    /// Sixteen bits.
    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// Yes in one of `n` cases.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    /// Changes some bytes: overwrites, cuts short, or lengthens.
    pub fn mangle(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = usize::from(self.short());
            match self.below(8) {
                0 => bytes.truncate(at % (bytes.len() + 1)),
                1 => bytes.push(self.byte()),
                2 => bytes.insert(at % (bytes.len() + 1), self.byte()),
                3 if !bytes.is_empty() => drop(bytes.remove(at % bytes.len())),
                _ if !bytes.is_empty() => {
                    let at = at % bytes.len();
                    bytes[at] ^= self.byte().max(1);
                }
                _ => {}
            }
        }
    }
}
