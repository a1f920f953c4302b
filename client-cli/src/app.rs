//! From a command line to an exit code: who holds the profile, and who does the work.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use mortise_protocol::engine::{Engine, Event, has_identity};
use tokio::net::UnixStream;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::commands::{Cli, Context, Global, Stdin, Verb, Watch, read_process_stdin, unasked};
use crate::daemon::{self, Clients, DaemonSocket};
use crate::driver::{ClientEngine, Session};
use crate::error::CliError;
use crate::exit::Exit;
use crate::machine::system_rng;
use crate::output::{Line, Printer, Report};
use crate::profile::{Profile, ProfileLock};
use crate::{database, keystore, passphrase};

/// How often somebody who waits for the lock looks again.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// How long a finished command stays to finish what it set off.
const SETTLE: Duration = Duration::from_secs(5);

/// Runs a command line, without the program's name, and returns the exit code.
pub async fn run(args: Vec<String>) -> u8 {
    let with_name = std::iter::once("mortise".to_owned()).chain(args.iter().cloned());
    let cli = match Cli::read(with_name) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &args).await,
    };
    let out = Printer::terminal(cli.global.json);
    match dispatch(cli, args, &out).await {
        Ok(code) => code,
        Err(error) => {
            out.error(&error).await;
            error.exit().number()
        }
    }
}

/// Help and version are results; everything else that clap says is an error.
async fn usage(error: &clap::Error, args: &[String]) -> u8 {
    if !error.use_stderr() {
        // A reader that has gone wants no more.
        let _ = error.print();
        return Exit::Ok.number();
    }
    let _ = error.print();
    if args.iter().any(|arg| arg == "--json") {
        let first = error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let what = first.trim_start_matches("error: ").to_owned();
        if let Ok(json) = Report::error(&CliError::Usage { what }).json() {
            let _ = Printer::terminal(true).write(Line::Out(json)).await;
        }
    }
    Exit::Usage.number()
}

async fn dispatch(cli: Cli, args: Vec<String>, out: &Printer) -> Result<u8, CliError> {
    let Cli { global, verb } = cli;
    if verb.needs_no_profile() {
        verb.onboard(&global, out).await?;
        return Ok(Exit::Ok.number());
    }
    let profile = global.profile()?;
    match access(&profile, global.timeout).await? {
        Access::Held(_) if verb.is_listen() => Err(CliError::ProfileLocked {
            dir: profile.dir().into(),
        }),
        Access::Held(stream) => {
            let stdin = if verb.reads_stdin() {
                Some(read_process_stdin().await?)
            } else {
                None
            };
            daemon::forward(stream, verb.elsewhere(args), stdin, out).await
        }
        Access::Ours(lock) => {
            let result = if verb.is_listen() {
                listen(&profile, &global, out).await
            } else {
                once(&profile, &global, verb, out).await
            };
            drop(lock);
            result.map(|()| Exit::Ok.number())
        }
    }
}

enum Access {
    /// Nobody else works on the profile.
    Ours(ProfileLock),
    /// A daemon does, and takes commands.
    Held(UnixStream),
}

/// Takes the lock, or finds the daemon that has it; another command is waited for.
async fn access(profile: &Profile, within: Duration) -> Result<Access, CliError> {
    profile.must_exist()?;
    let until = Instant::now() + within;
    loop {
        let locked = match profile.lock() {
            Ok(lock) => return Ok(Access::Ours(lock)),
            Err(error @ CliError::ProfileLocked { .. }) => error,
            Err(error) => return Err(error),
        };
        if let Some(stream) = daemon::connect(profile).await {
            return Ok(Access::Held(stream));
        }
        if Instant::now() >= until {
            return Err(locked);
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}

fn open(profile: &Profile, global: &Global) -> Result<ClientEngine, CliError> {
    let unfinished = || CliError::ProfileUnfinished {
        dir: profile.dir().into(),
    };
    if profile.unfinished()?.is_some_and(|mark| !mark.sent) {
        return Err(unfinished());
    }
    profile.make_dir()?;
    let passphrase = passphrase::read(global.passphrase_file.as_deref())?;
    let key = keystore::open(profile, &passphrase)?;
    let store = database::open(profile, &key)?;
    if !has_identity(&store)? {
        return Err(unfinished());
    }
    Ok(Engine::open(store, Box::new(system_rng()))?)
}

/// One command in a process of its own.
async fn once(
    profile: &Profile,
    global: &Global,
    verb: Verb,
    out: &Printer,
) -> Result<(), CliError> {
    let engine = open(profile, global)?;
    let session = Arc::new(Session::start(
        engine,
        global.timeout,
        global.offline || verb.is_local(),
    ));
    let events = session.take_events();
    let stays = verb.stays();
    let cx = Context {
        session: Arc::clone(&session),
        out: out.clone(),
        timeout: global.timeout,
        offline: global.offline,
        stdin: Stdin::Process,
    };
    let progress = events.as_ref().map(broadcast::Receiver::resubscribe);
    // Biased: what the verb has to say goes before how far it has come.
    let result = tokio::select! {
        biased;
        result = verb.run(&cx) => result,
        never = tell_progress(&cx, progress) => match never {},
    };
    if stays && matches!(result, Ok(()) | Err(CliError::Sealed { .. })) && !global.offline {
        // What the command set off goes on by itself; not to have finished it is no failure.
        let _ = session.wait_synced(SETTLE.min(global.timeout)).await;
    }
    let result = judge(profile, &session, result);
    if let Some(events) = events {
        tell_unasked(&cx, events).await;
    }
    session.close().await;
    result
}

/// Takes an interrupted joining into account: it has succeeded, or it must be done again.
fn judge(
    profile: &Profile,
    session: &Session,
    result: Result<(), CliError>,
) -> Result<(), CliError> {
    if profile.unfinished()?.is_none() {
        return result;
    }
    if session.status().borrow().synced {
        profile.mark_finished()?;
    }
    match result {
        Err(CliError::Expelled) => Err(CliError::JoinInterrupted),
        other => other,
    }
}

/// How far a long catching up has come, on stderr, as it happens.
async fn tell_progress(cx: &Context, events: Option<broadcast::Receiver<Event>>) -> Infallible {
    let Some(mut events) = events else {
        return std::future::pending().await;
    };
    loop {
        let event = match events.recv().await {
            Ok(event @ Event::CatchingUp { .. }) => event,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        };
        let Ok(names) = cx.names().await else {
            continue;
        };
        if let Ok(Some(report)) = unasked(&event, &cx.session, &names).await {
            cx.out.note(&report.text()).await;
        }
    }
}

/// What earlier commands had left to do, what others did, and alarms: on stderr.
async fn tell_unasked(cx: &Context, mut events: broadcast::Receiver<Event>) {
    let Ok(names) = cx.names().await else { return };
    loop {
        let event = match events.try_recv() {
            Ok(event) => event,
            Err(broadcast::error::TryRecvError::Lagged(_)) => continue,
            Err(_) => return,
        };
        if let Ok(Some(report)) = unasked(&event, &cx.session, &names).await {
            let text = report.text();
            match event {
                // It was told as it happened.
                Event::CatchingUp { .. } => {}
                Event::Alarm(_)
                | Event::NumberChanged { .. }
                | Event::GroupContinued { id: None, .. } => cx.out.note(&text).await,
                _ => {
                    cx.out
                        .note(&format!("from an earlier command: {text}"))
                        .await
                }
            }
        }
    }
}

/// The daemon.
async fn listen(profile: &Profile, global: &Global, out: &Printer) -> Result<(), CliError> {
    let stop = stop_signal()?;
    let engine = open(profile, global)?;
    let socket = DaemonSocket::bind(profile)?;
    let session = Arc::new(Session::start(engine, global.timeout, global.offline));
    let events = session
        .take_events()
        .ok_or_else(|| CliError::Internal("the events were taken".into()))?;
    let watch = Watch::new(Arc::clone(&session), out.clone()).await?;
    let mut clients = Clients::default();
    // Biased: who wants to stop us comes first.
    let result = tokio::select! {
        biased;
        () = stop => Ok(()),
        error = watch.run(events) => match error {
            CliError::OutputGone => Ok(()),
            error => Err(error),
        },
        error = daemon::serve(&socket, Arc::clone(&session), &mut clients) => Err(error),
    };
    clients.finish().await;
    let result = judge(profile, &session, result);
    drop(socket);
    session.close().await;
    result
}

/// Resolves at the first SIGTERM, SIGINT or SIGHUP; from now on they do not kill the process.
fn stop_signal() -> Result<impl Future<Output = ()>, CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let catch = |kind| signal(kind).map_err(|error| CliError::Internal(error.to_string()));
    let mut term = catch(SignalKind::terminate())?;
    let mut int = catch(SignalKind::interrupt())?;
    let mut hup = catch(SignalKind::hangup())?;
    Ok(async move {
        // Biased only for the sake of it: one is as good as another.
        tokio::select! {
            biased;
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {}
        }
    })
}
