//! A program that starts with a storage fault before it, when it is armed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rand::Rng;

use super::power::lose;
use super::{DiskWord, Fault};

/// A script in the program's place: it preloads the library of faults when it finds its settings.
pub(super) struct Armed {
    /// What to run.
    pub(super) program: PathBuf,
    settings: PathBuf,
    log: PathBuf,
    library: PathBuf,
    /// Whether the disk lies about syncs.
    lies: bool,
}

impl Armed {
    /// Makes the script below `dir`.
    pub(super) fn new(dir: &Path, name: &str, real: &Path, disk: DiskWord) -> anyhow::Result<Self> {
        let library = real.with_file_name("libmortise_faults.so");
        anyhow::ensure!(
            library.is_file(),
            "libmortise_faults.so was not built: run `cargo build --workspace` first"
        );
        let armed = Self {
            program: dir.join(name),
            settings: dir.join(format!("{name}.settings")),
            log: dir.join(format!("{name}.undo")),
            library,
            lies: disk == DiskWord::Lies,
        };
        let script = format!(
            "#!/bin/sh\n[ ! -f '{settings}' ] || . '{settings}'\nexec '{real}' \"$@\"\n",
            settings = armed.settings.display(),
            real = real.display(),
        );
        std::fs::write(&armed.program, script).context("write a script")?;
        std::fs::set_permissions(&armed.program, std::fs::Permissions::from_mode(0o755))
            .context("make a script executable")?;
        Ok(armed)
    }

    /// Lets what is started from now on fail at a call on a file below `dir`.
    pub(super) fn arm(&self, dir: &Path, kind: &str, call: u64) -> anyhow::Result<()> {
        std::fs::write(&self.log, []).context("empty the undo log")?;
        let lies = if self.lies {
            " MORTISE_FAULT_LIES=1"
        } else {
            ""
        };
        let settings = format!(
            "export MORTISE_FAULT_DIR='{}' MORTISE_FAULT_LOG='{}' MORTISE_FAULT_KIND={kind} MORTISE_FAULT_AT={call}{lies}\n\
             export LD_PRELOAD='{}'\n",
            dir.display(),
            self.log.display(),
            self.library.display(),
        );
        std::fs::write(&self.settings, settings).context("write the fault's settings")
    }

    /// What is started from now on is honest.
    pub(super) fn disarm(&self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.settings).context("remove the fault's settings")
    }

    /// What the machine loses with its power; nothing with another fault.
    pub(super) fn lose(&self, fault: Fault, rng: &mut impl Rng) -> anyhow::Result<usize> {
        match fault {
            Fault::Power(loss) => lose(&self.log, loss, rng),
            _ => Ok(0),
        }
    }
}
