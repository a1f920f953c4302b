//! The database's key: Argon2id over the passphrase, salted by a small versioned header beside the database.
//!
//! The header also holds half of Argon2's output, so that a wrong passphrase is told from a damaged database;
//! it helps an attacker no more than the database itself does. This module must never store the passphrase.

use std::fmt;
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::HEXLOWER;
use rand::RngCore;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::CliError;
use crate::profile::{Profile, read_limited};

/// Argon2id memory, KiB.
const MEMORY_KIB: u32 = 64 * 1024;
/// Argon2id passes.
const PASSES: u32 = 3;
/// What a header may ask for, so that a damaged one cannot take the machine down.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 64;
/// A header is about 200 bytes.
const MAX_HEADER_BYTES: u64 = 4096;
const VERSION: u8 = 1;

/// The database's raw 256-bit key. Wiped on drop, never printed.
pub struct DatabaseKey([u8; 32]);

impl Drop for DatabaseKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for DatabaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseKey(secret)")
    }
}

impl DatabaseKey {
    /// SQLCipher's notation for a raw key, `x'…'`.
    #[must_use]
    pub fn dangerous_pragma(&self) -> Zeroizing<String> {
        let hex = Zeroizing::new(HEXLOWER.encode(&self.0));
        Zeroizing::new(format!("x'{}'", hex.as_str()))
    }
}

/// What `client.key` holds, as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u8,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    /// 16 bytes, hex.
    salt: String,
    /// 32 bytes, hex.
    check: String,
}

/// Makes a header for this passphrase, writes it durably, and gives the key.
///
/// Takes about 0.2 s and 64 MiB.
///
/// # Errors
/// [`CliError::EmptyPassphrase`], [`CliError::File`], [`CliError::DiskFull`].
pub fn create(
    profile: &Profile,
    passphrase: &str,
    rng: &mut dyn RngCore,
) -> Result<DatabaseKey, CliError> {
    if passphrase.is_empty() {
        return Err(CliError::EmptyPassphrase);
    }
    let mut salt = [0; 16];
    rng.fill_bytes(&mut salt);
    let (key, check) = derive(passphrase, &salt, MEMORY_KIB, PASSES)?;
    let header = Header {
        version: VERSION,
        kdf: "argon2id".into(),
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        salt: HEXLOWER.encode(&salt),
        check: HEXLOWER.encode(check.as_ref()),
    };
    let text = serde_json::to_vec_pretty(&header).map_err(|e| CliError::Internal(e.to_string()))?;
    profile.replace_file(&profile.key_file(), &text)?;
    Ok(key)
}

/// Reads the header and gives the key, if the passphrase is right.
///
/// # Errors
/// [`CliError::WrongPassphrase`]; [`CliError::Corrupt`] for a header that is missing or damaged.
pub fn open(profile: &Profile, passphrase: &str) -> Result<DatabaseKey, CliError> {
    if passphrase.is_empty() {
        return Err(CliError::EmptyPassphrase);
    }
    let header = read_header(&profile.key_file())?;
    let salt: [u8; 16] = bytes(&header.salt)?;
    let expected: [u8; 32] = bytes(&header.check)?;
    let (key, check) = derive(passphrase, &salt, header.memory_kib, header.passes)?;
    if bool::from(check.as_slice().ct_eq(&expected)) {
        Ok(key)
    } else {
        Err(CliError::WrongPassphrase)
    }
}

fn read_header(path: &Path) -> Result<Header, CliError> {
    if !path.exists() {
        return Err(corrupt("it is missing"));
    }
    let text = match read_limited(path, MAX_HEADER_BYTES) {
        Err(CliError::TooLarge(_)) => return Err(corrupt("it is far too long")),
        other => other?,
    };
    let header: Header =
        serde_json::from_slice(&text).map_err(|_| corrupt("it does not read as a key header"))?;
    if header.version != VERSION || header.kdf != "argon2id" {
        return Err(corrupt(
            "it is of a version that this program does not know",
        ));
    }
    if header.memory_kib > MAX_MEMORY_KIB || header.passes > MAX_PASSES {
        return Err(corrupt("its Argon2 parameters are out of bounds"));
    }
    Ok(header)
}

fn corrupt(reason: &str) -> CliError {
    CliError::Corrupt {
        file: "key file (client.key)",
        reason: reason.into(),
    }
}

fn bytes<const N: usize>(hex: &str) -> Result<[u8; N], CliError> {
    HEXLOWER
        .decode(hex.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| corrupt("a field has the wrong length"))
}

/// The first half of Argon2's 64 bytes is the key, the second the check value.
fn derive(
    passphrase: &str,
    salt: &[u8; 16],
    memory_kib: u32,
    passes: u32,
) -> Result<(DatabaseKey, Zeroizing<[u8; 32]>), CliError> {
    let params = Params::new(memory_kib, passes, 1, Some(64))
        .map_err(|_| corrupt("its Argon2 parameters are out of bounds"))?;
    let mut out = Zeroizing::new([0_u8; 64]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, out.as_mut())
        .map_err(|error| CliError::Internal(error.to_string()))?;
    let mut key = DatabaseKey([0; 32]);
    let mut check = Zeroizing::new([0; 32]);
    key.0.copy_from_slice(&out[..32]);
    check.copy_from_slice(&out[32..]);
    Ok((key, check))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn the_right_passphrase_opens_and_no_other() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let profile = Profile::at(tmp.path());
        let made = create(
            &profile,
            "four words of mine",
            &mut crate::machine::system_rng(),
        )
        .expect("create");
        let opened = open(&profile, "four words of mine").expect("open");
        assert_eq!(made.0, opened.0);
        let wrong = open(&profile, "four words of yours").expect_err("wrong");
        assert_eq!(wrong.exit(), Exit::Passphrase);
        assert_eq!(format!("{made:?}"), "DatabaseKey(secret)");
    }

    #[test]
    fn an_empty_passphrase_is_refused() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let profile = Profile::at(tmp.path());
        let error = create(&profile, "", &mut crate::machine::system_rng()).expect_err("empty");
        assert!(matches!(error, CliError::EmptyPassphrase));
        assert!(!profile.exists());
    }

    #[test]
    fn a_damaged_header_is_not_a_wrong_passphrase() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let profile = Profile::at(tmp.path());
        create(&profile, "p", &mut crate::machine::system_rng()).expect("create");
        let good = std::fs::read_to_string(profile.key_file()).expect("read");
        for bad in [
            good.replace("\"version\": 1", "\"version\": 9"),
            good.replace("65536", "4294967295"),
            good[..good.len() / 2].to_owned(),
            good.repeat(100),
            String::new(),
        ] {
            std::fs::write(profile.key_file(), bad).expect("write");
            assert_eq!(open(&profile, "p").expect_err("bad").exit(), Exit::Corrupt);
        }
    }
}
