//! What clients asked and were told, written down by all of them under one clock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mortise_protocol::identity::{DeviceId, GroupId};
use mortise_protocol::roster::Head;
use mortise_protocol::wire::{LogRecord, RelayToClient, Request};

use crate::history::{Call, Delivery, History, Reply, record};

#[derive(Debug, Default)]
struct Page {
    history: History,
    now: u64,
    /// The newest roster entry that anybody has been told of.
    newest: Option<Head>,
}

/// A history while it is made.
#[derive(Debug, Default)]
pub(super) struct Book {
    page: Mutex<Page>,
}

/// Where a question stands in the book.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked(Option<usize>);

impl Book {
    fn page(&self) -> MutexGuard<'_, Page> {
        // A client that panicked has left whole lines behind.
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        page.now += 1;
        page
    }

    /// To be called before the question is sent.
    pub(super) fn ask(&self, client: DeviceId, request: &Request) -> Asked {
        let mut page = self.page();
        let Some(question) = record::question(request) else {
            return Asked(None);
        };
        let invoked = page.now;
        page.history.calls.push(Call {
            client,
            invoked,
            returned: None,
            question,
            reply: Reply::Unknown,
        });
        Asked(Some(page.history.calls.len() - 1))
    }

    /// To be called when the answer has come.
    pub(super) fn answer(&self, asked: Asked, frame: &RelayToClient) {
        let mut page = self.page();
        let now = page.now;
        if let Some(call) = asked.0.and_then(|at| page.history.calls.get_mut(at)) {
            call.returned = Some(now);
            call.reply = record::reply(frame);
        }
    }

    pub(super) fn deliver(&self, client: DeviceId, group: GroupId, records: &[LogRecord]) {
        let mut page = self.page();
        let at = page.now;
        page.history
            .deliveries
            .extend(records.iter().map(|record| Delivery {
                client,
                at,
                group,
                seq: record.seq,
                fence: record.fence,
                record: record.record_id(),
            }));
    }

    /// Somebody knows of this roster entry.
    pub(super) fn learn(&self, head: Head) {
        let mut page = self.page();
        if page.newest.is_none_or(|newest| newest.seq < head.seq) {
            page.newest = Some(head);
        }
    }

    /// What anybody could have told a removed device.
    pub(super) fn newest(&self) -> Option<Head> {
        self.page().newest
    }

    /// What was written down.
    pub(super) fn take(&self) -> History {
        std::mem::take(&mut self.page().history)
    }
}
