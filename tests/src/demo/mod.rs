//! The demo: a dismissed colleague loses access to every group, on real parts, under real attacks.
//!
//! Every person is a process of the released client with a directory of their own, the relay is the released
//! relay. Nothing here may reach into a running product; what it opens are copies.

mod aftermath;
pub mod attack;
pub mod cast;
mod evidence;
pub mod person;
pub mod process;
pub mod relay;
mod removal;
pub mod report;
pub mod scan;
mod story;
pub mod vault;

pub use cast::{FEWEST_GROUPS, FEWEST_PEOPLE, MOST};
pub use process::Binaries;
pub use report::{DemoResult, Narrator};

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;
use tempfile::TempDir;

use cast::Cast;
use story::Story;

/// What the audience can choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// NDJSON instead of text.
    pub json: bool,
    /// How many groups.
    pub groups: usize,
    /// How many people.
    pub people: usize,
    /// The MLS ciphersuite: `0x0001` or `0x004F`.
    pub suite: String,
    /// Leaves all files where they are.
    pub keep: bool,
}

/// Tells the whole story and gives the numbers; whatever fails is told, and fails the demo.
pub fn run(options: &Options, binaries: &Binaries) -> DemoResult {
    let narrator = Narrator::new(options.json);
    let mut result = DemoResult {
        suite: options.suite.clone(),
        people: options.people,
        groups: options.groups,
        ..DemoResult::default()
    };
    match play(options, binaries, &narrator, &mut result) {
        Ok(controls) => result.pass = controls && result.holds(),
        Err(error) => {
            let what = format!("{error:#}");
            let fields = json!({ "message": what });
            narrator.tell("error", &format!("the demo cannot go on: {what}"), &fields);
        }
    }
    narrator.finish(&result);
    result
}

/// Whether every control worked.
fn play(
    options: &Options,
    binaries: &Binaries,
    narrator: &Narrator,
    result: &mut DemoResult,
) -> anyhow::Result<bool> {
    let dir = Scratch::make(options.keep, narrator)?;
    let cast = Cast::plan(options.people, options.groups);
    let mut story = Story::begin(narrator, cast, binaries, &dir.path)?;
    let outcome = act(&mut story, &options.suite, result);
    story.tally(result);
    outcome.map(|()| story.controls_worked())
}

/// The story, chapter by chapter.
fn act(story: &mut Story<'_>, suite: &str, result: &mut DemoResult) -> anyhow::Result<()> {
    let narrator = story.narrator;
    narrator.chapter("An organisation");
    story.found(suite)?;
    story.invite_everybody()?;
    story.form_groups()?;
    narrator.chapter("They talk");
    let mut spoils = story.steal()?;
    story.talk()?;
    story.steal_again(&mut spoils)?;
    narrator.chapter("The owner removes one of them, and goes offline at once");
    let order = story.order_removal(result)?;
    story.watch_the_cut(&mut spoils, &order, result)?;
    story.watch_rotation(&order, result)?;
    narrator.chapter("The others go on");
    let members = story.copy_members()?;
    story.talk_on(result)?;
    narrator.chapter("The attacks");
    story.attack_live(&spoils, &members, &order)?;
    let files = story.seize_relay()?;
    story.attack_files(&files, &spoils, &members, &order, result)?;
    narrator.chapter("The relay's files and log");
    story.scan_relay(&files, result)
}

/// The demo's directory; removed at the end unless it is to be kept.
struct Scratch {
    path: PathBuf,
    _guard: Option<TempDir>,
}

impl Scratch {
    fn make(keep: bool, narrator: &Narrator) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("mortise-demo-")
            .tempdir()
            .context("make a directory for the demo")?;
        if !keep {
            return Ok(Self {
                path: dir.path().to_owned(),
                _guard: Some(dir),
            });
        }
        let path = dir.keep();
        let sentence = format!("everything is kept in {}", path.display());
        narrator.tell("kept", &sentence, &json!({ "directory": path }));
        Ok(Self { path, _guard: None })
    }
}
