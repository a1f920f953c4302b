//! Fuzz targets: each takes any bytes, drives the product with them, and panics when a promise is broken.
//!
//! `./x fuzz TARGET` runs them under libFuzzer, guided by coverage (`tests/fuzz`); `./x test` runs the committed seeds, the
//! regressions and a few mutations of them. A target must depend on nothing but its bytes.

mod bytes;
mod certificate;
mod codec;
mod roster;
mod session;
mod villain;

pub use bytes::Bytes;

/// Something to feed bytes to.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is about, for `--help`.
    pub about: &'static str,
    /// Longer inputs find nothing that shorter ones do not.
    pub max_bytes: usize,
    /// Panics when a promise is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target {
        name: "wire",
        about: "frames, records, links: what decodes encodes to the same bytes (REQ-003)",
        max_bytes: 4_096,
        run: codec::wire,
    },
    Target {
        name: "content",
        about: "message content: one encoding, and no other (REQ-140)",
        max_bytes: 2_048,
        run: codec::content,
    },
    Target {
        name: "entry",
        about: "roster entries as bytes, after a good one: refused, or the roster is as sound as before",
        max_bytes: 4_096,
        run: roster::entry,
    },
    Target {
        name: "roster",
        about: "signed roster entries of every kind by everybody: what the rules must keep (REQ-011 to REQ-026)",
        max_bytes: 1_024,
        run: roster::chain,
    },
    Target {
        name: "certificate",
        about: "certificates: any bytes, changed ones, and what a dishonest maker signs (REQ-178)",
        max_bytes: 8_192,
        run: certificate::certificate,
    },
    Target {
        name: "mls",
        about: "a conversation whose commits, messages and Welcomes are changed on their way to somebody",
        max_bytes: 512,
        run: session::mls,
    },
    Target {
        name: "villain",
        about: "a member's commits, leaves and messages, changed before they are signed and encrypted",
        max_bytes: 256,
        run: villain::villain,
    },
    Target {
        name: "relay",
        about: "a relay whose devices' questions are changed on their way",
        max_bytes: 512,
        run: session::relay,
    },
    Target {
        name: "engine",
        about: "devices whose relay's answers and pushes are changed on their way",
        max_bytes: 512,
        run: session::engine,
    },
];

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
