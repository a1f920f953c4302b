//! Writes reports, notes and errors to the terminal, or hands them to the daemon's client.

use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Mutex, mpsc};

use super::{Report, clean, clean_json};
use crate::error::CliError;

/// One line for one of the two streams, without its line break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// For stdout.
    Out(String),
    /// For stderr.
    Err(String),
}

/// Where output goes, and how it looks.
#[derive(Clone, Debug)]
pub struct Printer {
    json: bool,
    sink: Sink,
}

#[derive(Clone, Debug)]
enum Sink {
    /// One line at a time, whoever writes it.
    Terminal(Arc<Mutex<()>>),
    Remote(mpsc::Sender<Line>),
}

impl Printer {
    /// To this process's stdout and stderr.
    #[must_use]
    pub fn terminal(json: bool) -> Self {
        Self {
            json,
            sink: Sink::Terminal(Arc::default()),
        }
    }

    /// To somebody else's.
    #[must_use]
    pub fn remote(json: bool, lines: mpsc::Sender<Line>) -> Self {
        Self {
            json,
            sink: Sink::Remote(lines),
        }
    }

    /// A result, on stdout.
    ///
    /// # Errors
    /// [`CliError::OutputGone`] when nobody reads any more.
    pub async fn report(&self, report: &Report) -> Result<(), CliError> {
        let text = if self.json {
            report.json()?
        } else {
            report.text()
        };
        self.write(Line::Out(text)).await
    }

    /// Progress or a diagnostic, on stderr. Whether anybody reads it changes nothing.
    pub async fn note(&self, text: &str) {
        let _ = self
            .write(Line::Err(format!("mortise: {}", clean(text))))
            .await;
    }

    /// What ended the command: on stderr for people, and as JSON on stdout where that was asked for.
    pub async fn error(&self, error: &CliError) {
        if matches!(error, CliError::OutputGone) {
            return;
        }
        let lines = format!(
            "mortise: {}\n  next: {}",
            clean(&error.to_string()),
            clean(error.advice())
        );
        let _ = self.write(Line::Err(lines)).await;
        if self.json
            && let Ok(json) = Report::error(error).json()
        {
            let _ = self.write(Line::Out(json)).await;
        }
    }

    /// Writes a line that is clean already.
    ///
    /// # Errors
    /// [`CliError::OutputGone`].
    pub async fn write(&self, line: Line) -> Result<(), CliError> {
        match &self.sink {
            Sink::Terminal(turn) => {
                let _turn = turn.lock().await;
                write_terminal(line).await.map_err(|_| CliError::OutputGone)
            }
            Sink::Remote(lines) => lines.send(line).await.map_err(|_| CliError::OutputGone),
        }
    }
}

async fn write_terminal(line: Line) -> std::io::Result<()> {
    match line {
        Line::Out(mut text) => {
            text.push('\n');
            let mut out = tokio::io::stdout();
            out.write_all(text.as_bytes()).await?;
            out.flush().await
        }
        Line::Err(mut text) => {
            text.push('\n');
            let mut err = tokio::io::stderr();
            err.write_all(text.as_bytes()).await?;
            err.flush().await
        }
    }
}

impl Report {
    /// One line of JSON that no terminal obeys.
    ///
    /// # Errors
    /// [`CliError::Internal`], if there is a bug.
    pub fn json(&self) -> Result<String, CliError> {
        serde_json::to_string(self)
            .map(|json| clean_json(&json))
            .map_err(|error| CliError::Internal(error.to_string()))
    }
}
