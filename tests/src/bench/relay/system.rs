//! What is compared: a server that takes messages durably and hands them to who listens.

use super::plan::{Plan, Round};

/// A server under load, with everybody connected and listening.
pub(super) trait System {
    /// What it is called in the report.
    fn name(&self) -> &'static str;

    /// Carries out the plan once; everything sent has arrived everywhere when it returns.
    ///
    /// # Errors
    /// When the server refuses, loses something, or takes too long.
    fn round(&mut self, plan: &Plan) -> anyhow::Result<Round>;
}
