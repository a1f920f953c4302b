//! The file of an organisation's root key: the key, and where the organisation is at home.

use std::path::Path;

use mortise_protocol::engine::RelayAddress;
use mortise_protocol::identity::{Hash, OrgId, SigningKey};
use zeroize::Zeroizing;

use crate::error::CliError;
use crate::profile::{read_limited, write_new_secret};

/// The line of the key: organisation and seed, hex.
const KEY: &str = "mortise-root-key-1";
/// The line of the relay: address and SHA-256 of its key, hex.
const RELAY: &str = "mortise-relay-1";
/// The file is below 1 KiB.
const MAX_BYTES: u64 = 16 * 1024;

/// What the file holds.
pub(super) struct RootKeyFile {
    pub(super) org: OrgId,
    pub(super) root: SigningKey,
    /// Where the organisation was founded.
    pub(super) relay: Option<RelayAddress>,
}

impl RootKeyFile {
    /// Writes it to a file that must not exist.
    ///
    /// # Errors
    /// [`CliError::FileExists`], [`CliError::File`], [`CliError::DiskFull`].
    pub(super) fn write(&self, path: &Path) -> Result<(), CliError> {
        write_new_secret(path, self.to_text().as_bytes())
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`CliError::RootKey`], [`CliError::File`].
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let bytes = Zeroizing::new(read_limited(path, MAX_BYTES)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| "it is not text");
        text.and_then(Self::parse)
            .map_err(|reason| CliError::RootKey {
                path: path.into(),
                reason: reason.into(),
            })
    }

    fn to_text(&self) -> Zeroizing<String> {
        let seed = self.root.dangerous_seed();
        let hex = Zeroizing::new(data_encoding::HEXLOWER.encode(seed.as_ref()));
        let relay = self.relay.as_ref().map_or_else(String::new, |relay| {
            format!("{RELAY} {} {}\n", relay.address, relay.key)
        });
        Zeroizing::new(format!(
            "# The root key of a Mortise organisation. Keep it offline, in two places. Never share it.\n\
             {KEY} {} {}\n{relay}",
            self.org,
            hex.as_str()
        ))
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut key = None;
        let mut relay = None;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [KEY, org, seed] => key = Some((hex(org)?, Zeroizing::new(hex(seed)?))),
                [RELAY, address, hash] => {
                    relay = Some(RelayAddress {
                        address: (*address).to_owned(),
                        key: Hash(hex(hash)?),
                    });
                }
                _ => return Err("it has a line that is not of such a file"),
            }
        }
        let (org, seed) = key.ok_or("it holds no key")?;
        let root = SigningKey::from_seed(&seed);
        if root.public().org_id() != OrgId(org) {
            return Err("the key is not that of the organisation that it names");
        }
        Ok(Self {
            org: OrgId(org),
            root,
            relay,
        })
    }
}

fn hex(text: &str) -> Result<[u8; 32], &'static str> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    bytes
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or("it is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> RootKeyFile {
        let root = SigningKey::from_seed(&[7; 32]);
        RootKeyFile {
            org: root.public().org_id(),
            root,
            relay: Some(RelayAddress {
                address: "relay.example.org:4433".into(),
                key: Hash([3; 32]),
            }),
        }
    }

    #[test]
    fn it_reads_back_and_a_damaged_one_does_not() {
        let text = file().to_text();
        let read = RootKeyFile::parse(&text).expect("it is whole");
        assert_eq!(read.org, file().org);
        assert_eq!(read.root.public(), file().root.public());
        assert_eq!(read.relay, file().relay);
        let other = text.replace("0707", "0708");
        for bad in [
            "",
            "# nothing",
            &other,
            &text[..text.len() - 3],
            &text.replace("root-key-1", "root-key-2"),
        ] {
            assert!(RootKeyFile::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_without_a_relay_is_one_too() {
        let bare = RootKeyFile {
            relay: None,
            ..file()
        };
        let read = RootKeyFile::parse(&bare.to_text()).expect("it is whole");
        assert_eq!(read.relay, None);
    }
}
