//! What work is done on: processors that take it as it comes, and a disk whose syncs are shared.

/// Some processors, each with one piece of work at a time.
#[derive(Clone, Debug)]
pub struct Processors {
    free_at: Vec<f64>,
}

impl Processors {
    /// So many.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            free_at: vec![0.0; count],
        }
    }

    /// Does `us` of work, not before `at`, on the processor that is free first; when it is done.
    pub fn run(&mut self, at: f64, us: f64) -> f64 {
        let first = self.free_at.iter_mut().min_by(|a, b| a.total_cmp(b));
        match first {
            Some(free_at) => {
                *free_at = free_at.max(at) + us;
                *free_at
            }
            None => at + us,
        }
    }
}

/// A disk: whoever comes while it syncs shares the next sync.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    us: f64,
    done_at: f64,
    next_done_at: f64,
}

impl Disk {
    pub(super) fn new(us: f64) -> Self {
        Self {
            us,
            done_at: 0.0,
            next_done_at: 0.0,
        }
    }

    /// When what was written by `at` is durable.
    pub(super) fn sync(&mut self, at: f64) -> f64 {
        if at >= self.next_done_at.max(self.done_at) {
            self.done_at = at + self.us;
            self.next_done_at = self.done_at;
        } else if at < self.done_at {
            self.next_done_at = self.done_at + self.us;
        } else {
            // The next one is under way: this is for the one after it.
            self.done_at = self.next_done_at;
            self.next_done_at = self.done_at + self.us;
        }
        self.next_done_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_waits_for_a_processor() {
        let mut two = Processors::new(2);
        assert_eq!((two.run(0.0, 10.0), two.run(0.0, 10.0)), (10.0, 10.0));
        assert_eq!(two.run(5.0, 10.0), 20.0);
        assert_eq!(two.run(50.0, 1.0), 51.0);
    }

    #[test]
    fn syncs_are_shared_by_who_comes_meanwhile() {
        let mut disk = Disk::new(10.0);
        assert_eq!(disk.sync(0.0), 10.0);
        assert_eq!((disk.sync(1.0), disk.sync(9.0)), (20.0, 20.0));
        assert_eq!(disk.sync(11.0), 30.0);
        assert_eq!(disk.sync(100.0), 110.0);
    }
}
