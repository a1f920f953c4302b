//! What is left on the relay, and the verdict.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use data_encoding::{BASE64, HEXLOWER};
use mortise_protocol::store::{Space, Store as _, Write};
use serde_json::json;

use super::aftermath::Seized;
use super::process::copy_dir;
use super::report::DemoResult;
use super::scan::{Scanner, Spelling};
use super::story::Story;

/// Words of names that are shorter occur by chance.
const SHORTEST_WORD: usize = 6;
/// A table that the relay does not have.
const CANARY_SPACE: Space = Space(0x7F);
const SPELLINGS: [Spelling; 4] = [
    Spelling::Utf8,
    Spelling::Utf16,
    Spelling::Hex,
    Spelling::Base64,
];

impl Story<'_> {
    /// Looks for everything that was said and for every name, in every spelling, in all that the relay has written.
    pub(super) fn scan_relay(
        &mut self,
        seized: &Seized,
        result: &mut DemoResult,
    ) -> anyhow::Result<()> {
        let phrases = self.phrases();
        let scanner = Scanner::new(phrases.iter().map(String::as_str));
        let scanned = scanner
            .scan(&seized.running)?
            .and(scanner.scan(&seized.stopped)?)
            .and(scanner.scan(&seized.logs)?);
        for finding in &scanned.findings {
            let file = finding
                .file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            let sentence = format!(
                "LEAK: \"{}\" as {:?} in {file}, byte {}",
                phrases[finding.phrase], finding.spelling, finding.at
            );
            let fields =
                json!({ "phrase": phrases[finding.phrase], "file": file, "at": finding.at });
            self.tell("leak", &sentence, &fields);
        }
        result.plaintext_found_on_relay = scanned.phrases();
        let sentence = format!(
            "{} texts, names and parts of names looked for in {} files, {} kB, in every spelling: {} found",
            phrases.len(),
            scanned.files,
            scanned.bytes / 1024,
            scanned.phrases()
        );
        let fields = json!({
            "phrases": phrases.len(), "files": scanned.files, "bytes": scanned.bytes,
            "found": scanned.phrases(),
        });
        self.tell("scanned", &sentence, &fields);
        self.control_of_the_scanner(&scanner, &phrases, seized)
    }

    /// Every text, the number in it, every name, its longer words, every group's name.
    fn phrases(&self) -> Vec<String> {
        let said = self.said_before.iter().chain(&self.said_after);
        let texts = said.map(|said| said.text.clone());
        let numbers = texts.clone().filter_map(|text| {
            let (_, number) = text.rsplit_once(" (note ")?;
            Some(number.trim_end_matches(')').to_owned())
        });
        let people = self.cast.people.iter();
        let words = people.clone().flat_map(|name| name.split(' '));
        let words = words.filter(|word| word.len() >= SHORTEST_WORD);
        let groups = self.cast.groups.iter().map(|group| group.name.clone());
        let mut phrases: Vec<String> = texts
            .chain(numbers)
            .chain(people.cloned())
            .chain(words.map(ToOwned::to_owned))
            .chain(groups)
            .collect();
        phrases.sort();
        phrases.dedup();
        phrases
    }

    /// The scanner finds what is planted in a scratch copy of the relay's directory: in its database and in its log.
    fn control_of_the_scanner(
        &mut self,
        scanner: &Scanner,
        phrases: &[String],
        seized: &Seized,
    ) -> anyhow::Result<()> {
        let scratch = self.base.join("planted");
        copy_dir(&seized.stopped, &scratch.join("relay"))?;
        copy_dir(&seized.logs, &scratch.join("log"))?;
        let canaries = [0, phrases.len() / 2, phrases.len() - 1];
        for (n, canary) in canaries.into_iter().enumerate() {
            plant_row(
                &scratch.join("relay/relay.db"),
                n,
                phrases[canary].as_bytes(),
            )?;
            plant_lines(&scratch.join("log/relay.stderr"), &phrases[canary])?;
        }
        let scanned = scanner.scan(&scratch)?;
        let finds = |spelling, canary, log: bool| {
            scanned.findings.iter().any(|f| {
                let is_log = f.file.extension().is_some_and(|e| e == "stderr");
                f.spelling == spelling && f.phrase == canary && is_log == log
            })
        };
        let all = canaries.into_iter().all(|canary| {
            let in_log = SPELLINGS.into_iter().all(|s| finds(s, canary, true));
            in_log && finds(Spelling::Utf8, canary, false)
        });
        let sentence = "the scanner finds each of three canaries in a scratch copy: in the database, and in the log in every spelling";
        self.control("scanner_finds_canaries", all, sentence);
        Ok(())
    }

    /// Counts the attacks, also of a story that could not be told to its end.
    pub(super) fn tally(&self, result: &mut DemoResult) {
        result.attacks_tried = self.attacks.len();
        result.attacks_succeeded = self.attacks.iter().filter(|a| a.succeeded).count();
    }

    /// Whether every control worked; names those that did not.
    pub(super) fn controls_worked(&self) -> bool {
        let failed = self.controls.iter().filter(|(_, worked)| !worked);
        failed
            .inspect(|(name, _)| {
                let sentence = format!("this control did not work: {name}");
                self.tell("control_failed", &sentence, &json!({ "name": name }));
            })
            .count()
            == 0
    }
}

fn plant_row(database: &Path, n: usize, canary: &[u8]) -> anyhow::Result<()> {
    let mut store = mortise_relay::store::open(database)?;
    let row = Write {
        space: CANARY_SPACE,
        key: n.to_be_bytes().to_vec(),
        value: Some([b"...", canary, b"..."].concat()),
    };
    store.apply(&[row]).context("plant a canary in a database")
}

fn plant_lines(log: &Path, canary: &str) -> anyhow::Result<()> {
    let mut file = std::fs::File::options()
        .append(true)
        .open(log)
        .context("open a copy of the relay's log")?;
    let utf16: Vec<u8> = canary.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let hex = HEXLOWER.encode(canary.as_bytes());
    let base64 = BASE64.encode(format!("{{\"text\":\"{canary}\"}}").as_bytes());
    for line in [canary.as_bytes(), &utf16, hex.as_bytes(), base64.as_bytes()] {
        file.write_all(line)
            .and_then(|()| file.write_all(b"\n"))
            .context("plant a canary in a log")?;
    }
    Ok(())
}
