//! What a seed has told so far: all of it on stderr on demand, and its last lines for whoever reads of a failure.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// How many lines are kept.
const KEPT: usize = 40;

/// The story of a seed, told by all who know a part of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    pub(super) aloud: bool,
    last: Rc<RefCell<VecDeque<String>>>,
}

impl Story {
    /// Adds a line, with the world's time in ms.
    pub(super) fn tell(&self, elapsed_ms: u64, what: impl FnOnce() -> String) {
        let line = format!("{elapsed_ms:>8} {}", what());
        if self.aloud {
            eprintln!("{line}");
        }
        let mut last = self.last.borrow_mut();
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(line);
    }

    /// The last lines, oldest first.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.last.borrow().iter().cloned().collect()
    }
}
