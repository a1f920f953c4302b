//! A door between a node and a server: open, held (nothing passes, nothing breaks), held for commits alone, or shut (what
//! is open breaks).

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A transaction's last statement, as the protocol of PostgreSQL carries it.
const COMMIT: &[u8] = b"COMMIT\0";

/// What a door lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Everything.
    Open,
    /// Nothing: bytes wait in front of it.
    Held,
    /// Everything but a transaction's last journey: whoever has read and decided waits in front of it.
    HeldAtCommit,
    /// Nothing, and connections break.
    Shut,
}

/// A TCP port on the loopback that leads to a Unix socket.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    door: Arc<watch::Sender<Door>>,
    /// How many commits were held.
    caught: Arc<watch::Sender<u64>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Opens a port that leads to `socket`.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn to(socket: PathBuf) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("open a port")?;
        let port = listener.local_addr().context("open a port")?.port();
        let (door, state) = watch::channel(Door::Open);
        let mut tasks = JoinSet::new();
        let caught = Arc::new(watch::Sender::new(0));
        tasks.spawn(accept(listener, socket, state, Arc::clone(&caught)));
        Ok(Self {
            port,
            door: Arc::new(door),
            caught,
            _tasks: tasks,
        })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Counts the commits that were held.
    #[must_use]
    pub fn caught(&self) -> watch::Receiver<u64> {
        self.caught.subscribe()
    }

    /// What opens it later.
    #[must_use]
    pub fn opener(&self) -> Opener {
        Opener(Arc::clone(&self.door))
    }

    /// Moves the door.
    pub fn set(&self, door: Door) {
        self.door.send_replace(door);
    }
}

/// Opens a door.
#[derive(Debug)]
pub struct Opener(Arc<watch::Sender<Door>>);

impl Opener {
    /// Opens it.
    pub fn open(&self) {
        self.0.send_replace(Door::Open);
    }
}

async fn accept(
    listener: TcpListener,
    socket: PathBuf,
    state: watch::Receiver<Door>,
    caught: Arc<watch::Sender<u64>>,
) {
    let mut pairs = JoinSet::new();
    loop {
        // Biased: what has ended makes room first.
        tokio::select! {
            biased;
            Some(_) = pairs.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                pairs.spawn(carry(stream, socket.clone(), state.clone(), Arc::clone(&caught)));
            }
        }
    }
}

async fn carry(
    stream: TcpStream,
    socket: PathBuf,
    mut state: watch::Receiver<Door>,
    caught: Arc<watch::Sender<u64>>,
) {
    // Whoever comes to a held door waits in front of it.
    let Ok(door) = state
        .wait_for(|door| *door != Door::Held)
        .await
        .map(|door| *door)
    else {
        return;
    };
    if door == Door::Shut {
        return;
    }
    let Ok(server) = UnixStream::connect(socket).await else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let (from_node, to_node) = stream.into_split();
    let (from_server, to_server) = server.into_split();
    let mut shut = state.clone();
    // Either end, or the door, ends both directions.
    tokio::select! {
        () = pass(from_node, to_server, state.clone(), Some(&caught)) => {}
        () = pass(from_server, to_node, state, None) => {}
        _ = shut.wait_for(|door| *door == Door::Shut) => {}
    }
}

async fn pass(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut state: watch::Receiver<Door>,
    caught: Option<&watch::Sender<u64>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(n @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let Some(bytes) = buffer.get(..n) else { return };
        // A commit comes with what it commits, in one write of the node's; it may be cut in two, and is not caught then.
        let commits = caught.filter(|_| bytes.windows(COMMIT.len()).any(|w| w == COMMIT));
        let at_commit = *state.borrow() == Door::HeldAtCommit;
        if let (Some(caught), true) = (commits, at_commit) {
            caught.send_modify(|count| *count += 1);
        }
        let passes = |door: &Door| match door {
            Door::Held => false,
            Door::HeldAtCommit => commits.is_none(),
            Door::Open | Door::Shut => true,
        };
        if state.wait_for(passes).await.is_err() {
            return;
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
