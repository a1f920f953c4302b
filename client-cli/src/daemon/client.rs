//! The side of the command that finds the profile held by `mortise listen`.

use std::time::Duration;

use serde_json::Error as JsonError;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::time::timeout;

use super::{Answer, MAX_LINE_BYTES, Request, SILENCE, VERSION};
use crate::error::CliError;
use crate::output::{Line, Printer};

/// Has the daemon run a command line, prints what it prints, and returns its exit code.
///
/// # Errors
/// [`CliError::Daemon`] when it dies or hangs; [`CliError::OutputGone`].
pub async fn forward(
    stream: UnixStream,
    args: Vec<String>,
    stdin: Option<String>,
    out: &Printer,
) -> Result<u8, CliError> {
    forward_within(SILENCE, stream, args, stdin, out).await
}

async fn forward_within(
    silence: Duration,
    stream: UnixStream,
    args: Vec<String>,
    stdin: Option<String>,
    out: &Printer,
) -> Result<u8, CliError> {
    let request = Request {
        version: VERSION,
        args,
        stdin,
    };
    let mut line = serde_json::to_vec(&request).map_err(|e| CliError::Internal(e.to_string()))?;
    line.push(b'\n');
    let (read, mut write) = stream.into_split();
    timeout(silence, write.write_all(&line))
        .await
        .map_err(|_| daemon("does not answer"))?
        .map_err(|error| daemon(format!("closed the connection ({error})")))?;
    let mut lines = BufReader::new(read);
    loop {
        match next(&mut lines, silence).await? {
            Answer::Out(text) => out.write(Line::Out(text)).await?,
            Answer::Err(text) => out.write(Line::Err(text)).await?,
            Answer::Beat => {}
            Answer::Exit(code) => return Ok(code),
        }
    }
}

async fn next(lines: &mut BufReader<OwnedReadHalf>, silence: Duration) -> Result<Answer, CliError> {
    let mut line = Vec::new();
    let mut lines = lines.take(MAX_LINE_BYTES);
    let read = lines.read_until(b'\n', &mut line);
    timeout(silence, read)
        .await
        .map_err(|_| daemon("does not answer"))?
        .map_err(|error| daemon(format!("broke the connection ({error})")))?;
    if line.last() != Some(&b'\n') {
        return Err(daemon(
            "ended in the middle of this command; whether it was done is not known",
        ));
    }
    serde_json::from_slice(&line)
        .map_err(|_: JsonError| daemon("is of another version than this program"))
}

fn daemon(reason: impl Into<String>) -> CliError {
    CliError::Daemon {
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_daemon_that_dies_in_the_middle_is_reported() {
        let (mine, mut its) = UnixStream::pair().expect("pair");
        let (lines, mut shown) = tokio::sync::mpsc::channel(8);
        let out = Printer::remote(false, lines);
        let daemon = async move {
            let mut request = Vec::new();
            BufReader::new(&mut its)
                .read_until(b'\n', &mut request)
                .await
                .expect("request");
            its.write_all(b"{\"out\":\"one\"}\n\"beat\"\n{\"ou")
                .await
                .expect("answer");
        };
        let (result, ()) = tokio::join!(forward(mine, vec!["whoami".into()], None, &out), daemon);
        let error = result.expect_err("it died");
        assert!(error.to_string().contains("ended in the middle"), "{error}");
        assert_eq!(error.exit(), crate::exit::Exit::Daemon);
        assert_eq!(shown.recv().await, Some(Line::Out("one".into())));
    }

    #[tokio::test]
    async fn a_daemon_that_hangs_is_reported() {
        let (mine, _its) = UnixStream::pair().expect("pair");
        let (lines, _shown) = tokio::sync::mpsc::channel(8);
        let out = Printer::remote(false, lines);
        let error = forward_within(Duration::from_millis(20), mine, vec![], None, &out)
            .await
            .expect_err("it hangs");
        assert!(error.to_string().contains("does not answer"), "{error}");
    }
}
