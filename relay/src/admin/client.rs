//! The asking end of the admin socket.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{AdminError, AdminRequest, AdminResponse};
use crate::data_dir::DataDir;

/// How long a running relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the relay that runs on a data directory. Blocks.
///
/// # Errors
/// [`AdminError::NotRunning`] when nobody listens; [`AdminError::Failed`] when the relay refuses.
pub fn ask(dir: &DataDir, request: AdminRequest) -> Result<AdminResponse, AdminError> {
    let path = dir.admin_socket();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AdminError::NotRunning {
            directory: dir.path().into(),
        },
        _ => AdminError::Socket {
            path: path.clone(),
            error,
        },
    };
    let mut line = serde_json::to_vec(&request).map_err(|_| AdminError::Unreadable)?;
    line.push(b'\n');
    let mut stream = UnixStream::connect(&path).map_err(failed)?;
    let answer = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(&line))
        .and_then(|()| {
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(answer)
        })
        .map_err(failed)?;
    match serde_json::from_str(&answer) {
        Ok(AdminResponse::Failed { reason }) => Err(AdminError::Failed { reason }),
        Ok(answer) => Ok(answer),
        Err(_) => Err(AdminError::Unreadable),
    }
}
