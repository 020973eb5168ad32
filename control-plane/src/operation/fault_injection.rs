//! Fault points: places between two actions of a step at which a test stops the process, or lets it sleep past its
//! lease. A program without the feature `test-util` passes them without any effect.

#[cfg(not(feature = "test-util"))]
pub(super) use disabled::FaultPoints;
#[cfg(feature = "test-util")]
pub(super) use enabled::FaultPoints;

/// The form for programs.
#[cfg(not(feature = "test-util"))]
mod disabled {
    #[derive(Debug, Default)]
    pub(in super::super) struct FaultPoints {}

    impl FaultPoints {
        #[expect(clippy::unused_async, reason = "the other form waits")]
        pub(in super::super) async fn pass_point(&self, _name: &'static str) {}

        #[expect(clippy::unused_async, reason = "the other form waits")]
        pub(in super::super) async fn wait_while_halted(&self) {}
    }
}

/// Stops every task at a chosen fault point. On disk this looks like a crash, or like a pause if the work continues.
#[cfg(feature = "test-util")]
mod enabled {
    use std::sync::Mutex;

    use tokio::sync::watch;

    /// The point at which the work stops.
    #[derive(Debug)]
    enum FaultTrigger {
        Never,
        /// After this many fault points.
        After(usize),
        /// At the fault point of this name, when it was passed this many times.
        AtPass(&'static str, usize),
        /// The work has stopped.
        Now,
    }

    #[derive(Debug)]
    pub(in super::super) struct FaultPoints {
        stop: Mutex<FaultTrigger>,
        passed: Mutex<Vec<&'static str>>,
        reached: watch::Sender<Option<&'static str>>,
        resumed: watch::Sender<()>,
    }

    impl Default for FaultPoints {
        fn default() -> Self {
            Self {
                stop: Mutex::new(FaultTrigger::Never),
                passed: Mutex::default(),
                reached: watch::channel(None).0,
                resumed: watch::channel(()).0,
            }
        }
    }

    impl FaultPoints {
        pub(in super::super) fn halt_after(&self, count: usize) {
            *super::super::context::lock_mutex(&self.stop) = FaultTrigger::After(count);
            super::super::context::lock_mutex(&self.passed).clear();
        }

        pub(in super::super) fn halt_at_pass(&self, name: &'static str, pass: usize) {
            *super::super::context::lock_mutex(&self.stop) = FaultTrigger::AtPass(name, pass);
        }

        pub(in super::super) fn passed_points(&self) -> Vec<&'static str> {
            super::super::context::lock_mutex(&self.passed).clone()
        }

        pub(in super::super) async fn pass_point(&self, name: &'static str) {
            super::super::context::lock_mutex(&self.passed).push(name);
            let mut resumed = self.resumed.subscribe();
            if self.should_halt(name) {
                self.reached.send_if_modified(|at| at.is_none().then(|| *at = Some(name)).is_some());
                // An error is impossible: the sender lives as long as `self`.
                let _ = resumed.changed().await;
            }
        }

        pub(in super::super) async fn wait_while_halted(&self) {
            let mut resumed = self.resumed.subscribe();
            if matches!(*super::super::context::lock_mutex(&self.stop), FaultTrigger::Now) {
                let _ = resumed.changed().await;
            }
        }

        pub(in super::super) fn resume_halted(&self) {
            *super::super::context::lock_mutex(&self.stop) = FaultTrigger::Never;
            self.resumed.send_replace(());
        }

        fn should_halt(&self, name: &'static str) -> bool {
            let mut stop = super::super::context::lock_mutex(&self.stop);
            match &mut *stop {
                FaultTrigger::After(left) => *left = left.saturating_sub(1),
                FaultTrigger::AtPass(at, left) if *at == name => *left = left.saturating_sub(1),
                _ => {}
            }
            let now = match &*stop {
                FaultTrigger::Never => false,
                FaultTrigger::After(left) | FaultTrigger::AtPass(_, left) => *left == 0,
                FaultTrigger::Now => true,
            };
            if now {
                *stop = FaultTrigger::Now;
            }
            now
        }

        pub(in super::super) async fn wait_until_halted(&self) -> &'static str {
            let mut watch = self.reached.subscribe();
            loop {
                if let Some(name) = *watch.borrow_and_update() {
                    return name;
                }
                if watch.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}
