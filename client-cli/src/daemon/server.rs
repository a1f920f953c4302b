//! The side of `mortise listen`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Answer, BEAT, DaemonSocket, MAX_LINE_BYTES, Request, SILENCE, VERSION};
use crate::commands::{Cli, Context, Stdin};
use crate::driver::Session;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Line, Printer};

/// Commands at once; further ones wait.
const MAX_CLIENTS: usize = 16;
/// How long a daemon that ends waits for the commands that it serves.
const FINISH: Duration = Duration::from_secs(1);
/// Lines that may wait for a slow client.
const LINES: usize = 64;

/// Commands that are being served; dropping it ends them.
#[derive(Debug, Default)]
pub struct Clients(JoinSet<()>);

impl Clients {
    /// Lets commands that are about to end do so: whoever ordered what ends the daemon is still told.
    pub async fn finish(mut self) {
        let all = async { while self.0.join_next().await.is_some() {} };
        // Those that go on for longer are told by the end of their connection.
        let _ = timeout(FINISH, all).await;
    }
}

/// Serves other commands on this session, for ever.
pub async fn serve(
    socket: &DaemonSocket,
    session: Arc<Session>,
    Clients(clients): &mut Clients,
) -> CliError {
    loop {
        // Biased: clients that are done make room before new ones are taken.
        tokio::select! {
            biased;
            Some(_) = clients.join_next() => {}
            accepted = socket.listener.accept(), if clients.len() < MAX_CLIENTS => match accepted {
                Ok((stream, _)) => {
                    let session = Arc::clone(&session);
                    // A client that goes away is its own affair.
                    clients.spawn(async move { drop(handle_client(stream, session).await) });
                }
                Err(error) => return CliError::Internal(format!("the socket failed: {error}")),
            },
        }
    }
}

async fn handle_client(stream: UnixStream, session: Arc<Session>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let request = timeout(SILENCE, read_request(&mut read)).await??;
    let (lines, shown) = mpsc::channel(LINES);
    let work = run(request, session, lines);
    tokio::select! {
        biased;
        result = answer(&mut write, work, shown) => result,
        // The client says nothing more: what it "says" next is that it has gone.
        _ = read.read_u8() => Ok(()),
    }
}

async fn read_request(read: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Request> {
    let mut line = Vec::new();
    read.take(MAX_LINE_BYTES)
        .read_until(b'\n', &mut line)
        .await?;
    serde_json::from_slice(&line).map_err(std::io::Error::other)
}

/// Runs the command line as if it were a process of its own.
async fn run(request: Request, session: Arc<Session>, lines: mpsc::Sender<Line>) -> Exit {
    let plain = Printer::remote(false, lines.clone());
    if request.version != VERSION {
        let reason = "is of another version than this program".into();
        plain.error(&CliError::Daemon { reason }).await;
        return Exit::Daemon;
    }
    let args = std::iter::once("mortise".to_owned()).chain(request.args);
    let cli = match Cli::read(args) {
        Ok(cli) => cli,
        Err(error) => {
            plain.note(&error.to_string()).await;
            return Exit::Usage;
        }
    };
    let cx = Context {
        session,
        out: Printer::remote(cli.global.json, lines),
        timeout: cli.global.timeout,
        offline: cli.global.offline,
        stdin: Stdin::Given(request.stdin.unwrap_or_default()),
    };
    match cli.verb.run(&cx).await {
        Ok(()) => Exit::Ok,
        Err(error) => {
            cx.out.error(&error).await;
            error.exit()
        }
    }
}

/// Passes lines on as they come, with a beat in between, and the exit code when all are out.
async fn answer(
    write: &mut OwnedWriteHalf,
    work: impl Future<Output = Exit>,
    mut lines: mpsc::Receiver<Line>,
) -> std::io::Result<()> {
    tokio::pin!(work);
    let mut beat = tokio::time::interval(BEAT);
    let mut exit = None;
    loop {
        // Biased: lines go out before the work can make more.
        tokio::select! {
            biased;
            line = lines.recv() => match (line, exit) {
                (Some(line), _) => send(write, &line.into()).await?,
                // Every sender has gone, so the work has ended.
                (None, exit) => {
                    let exit = match exit {
                        Some(exit) => exit,
                        None => (&mut work).await,
                    };
                    return send(write, &Answer::Exit(Exit::number(exit))).await;
                }
            },
            code = &mut work, if exit.is_none() => exit = Some(code),
            _ = beat.tick() => send(write, &Answer::Beat).await?,
        }
    }
}

async fn send(write: &mut OwnedWriteHalf, answer: &Answer) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(std::io::Error::other)?;
    line.push(b'\n');
    timeout(SILENCE, write.write_all(&line)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client's side makes of what the server's side sends.
    #[tokio::test]
    async fn lines_and_exit_code_arrive_in_order() {
        let (mine, its) = UnixStream::pair().expect("pair");
        let (_its_read, mut its_write) = its.into_split();
        let (lines, shown) = mpsc::channel(1);
        let work = async move {
            for n in 0..100 {
                lines.send(Line::Out(n.to_string())).await.expect("send");
            }
            lines.send(Line::Err("last".into())).await.expect("send");
            Exit::Sealed
        };
        let (tx, mut rx) = mpsc::channel(200);
        let out = Printer::remote(false, tx);
        let client = super::super::forward(mine, vec![], None, &out);
        let (code, sent) = tokio::join!(client, answer(&mut its_write, work, shown));
        sent.expect("sent");
        assert_eq!(code.expect("exit"), Exit::Sealed.number());
        for n in 0..100 {
            assert_eq!(rx.recv().await, Some(Line::Out(n.to_string())));
        }
        assert_eq!(rx.recv().await, Some(Line::Err("last".into())));
    }
}
