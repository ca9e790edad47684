//! Whether the loop of node groups goes on: a replica whose loop hangs is restarted by its liveness probe, and another one leads.
//!
//! Source: Cluster Autoscaler, `metrics/liveness.go`. There a loop that only fails restarts the process, too; here that is said at
//! `/health-check` alone, since ScaledObjects live in the same process, and no restart mends a cloud.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::cli::nodes::NodeArgs;

/// How long the loop may be silent.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// `--max-inactivity`: since a pass began.
    inactivity: Duration,
    /// `--max-failing-time`: since one succeeded.
    failing: Duration,
    /// `--max-startup-time`: instead of both until the first one has succeeded, since caches have to be filled.
    startup: Duration,
}

/// When passes over node groups were made.
#[derive(Debug)]
pub struct Liveness {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Absent while another replica leads, and as long as nobody waits for a pass.
    last: Option<Last>,
    /// Whether a pass has succeeded since the start of the process.
    started: bool,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    activity: Instant,
    success: Instant,
}

impl Liveness {
    /// Nobody waits for a pass.
    pub fn new(args: &NodeArgs) -> Arc<Self> {
        let limits = Limits {
            inactivity: args.max_inactivity,
            failing: args.max_failing_time,
            startup: args.max_startup_time,
        };
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// Waits for passes while this replica leads.
    pub async fn follow(self: Arc<Self>, mut leading: watch::Receiver<bool>) {
        loop {
            let leads = *leading.borrow_and_update();
            let now = Instant::now();
            self.state.lock().last = leads.then_some(Last { activity: now, success: now });
            if leading.changed().await.is_err() {
                self.state.lock().last = None;
                return;
            }
        }
    }

    /// A pass begins.
    pub(super) fn begins(&self) {
        if let Some(last) = &mut self.state.lock().last {
            last.activity = Instant::now();
        }
    }

    /// A pass succeeded.
    pub(super) fn succeeded(&self) {
        let mut state = self.state.lock();
        state.started = true;
        let now = Instant::now();
        state.last = state.last.map(|_| Last { activity: now, success: now });
    }

    /// What is wrong with the loop, if no pass has succeeded for too long.
    pub fn problem(&self) -> Option<String> {
        self.silent(|last, limits| {
            last.activity.elapsed() > limits.inactivity || last.success.elapsed() > limits.failing
        })
    }

    /// What is wrong with the loop, if no pass has even begun for too long.
    pub fn hangs(&self) -> Option<String> {
        self.silent(|last, limits| last.activity.elapsed() > limits.inactivity)
    }

    fn silent(&self, too_long: impl FnOnce(Last, Limits) -> bool) -> Option<String> {
        let state = self.state.lock();
        let (last, limits) = (state.last?, self.limits);
        let first = Limits { inactivity: limits.startup, failing: limits.startup, ..limits };
        too_long(last, if state.started { limits } else { first }).then(|| {
            let (idle, failed) = (last.activity.elapsed().as_secs(), last.success.elapsed().as_secs());
            format!("node groups: the last pass began {idle} s ago, the last one that succeeded ended {failed} s ago")
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        nodes: NodeArgs,
    }

    const MINUTE: Duration = Duration::from_mins(1);

    /// A loop that leads or does not.
    async fn liveness(leads: bool) -> (Arc<Liveness>, watch::Sender<bool>) {
        let liveness = Liveness::new(&Flags::parse_from(["tandem"]).nodes);
        let (sender, leading) = watch::channel(leads);
        tokio::spawn(liveness.clone().follow(leading));
        tokio::task::yield_now().await;
        (liveness, sender)
    }

    /// Passes a minute apart; after how many minutes it is not healthy, if it is not after an hour.
    async fn healthy_for(liveness: &Liveness, mut pass: impl FnMut(u32)) -> Option<u32> {
        for minute in 0..60 {
            pass(minute);
            tokio::time::advance(MINUTE + Duration::from_millis(1)).await;
            if liveness.problem().is_some() {
                return Some(minute + 1);
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_goes_on_is_healthy_and_one_that_does_not_is_not() {
        let begun = |liveness: Arc<Liveness>| move |_| liveness.begins();
        let (loops, _leads) = liveness(true).await;
        assert_eq!(healthy_for(&loops, begun(loops.clone())).await, Some(20), "the first never succeeds");
        let (loops, _leads) = liveness(true).await;
        assert_eq!(healthy_for(&loops, |_| {}).await, Some(20), "the first never begins");
        let (loops, _leads) = liveness(true).await;
        loops.succeeded();
        assert_eq!(healthy_for(&loops, |_| loops.succeeded()).await, None);
        loops.succeeded();
        assert_eq!(healthy_for(&loops, begun(loops.clone())).await, Some(15), "all fail");
        assert_eq!(loops.hangs(), None, "a restart does not mend what fails");
        loops.succeeded();
        assert_eq!(loops.problem(), None, "one does again");
        assert_eq!(healthy_for(&loops, |_| {}).await, Some(10), "one hangs");
        let wanted =
            "node groups: the last pass began 600 s ago, the last one that succeeded ended 600 s ago";
        assert_eq!(loops.problem().as_deref(), Some(wanted));
        assert_eq!(loops.hangs().as_deref(), Some(wanted));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_lead_is_healthy() {
        let (loops, leads) = liveness(false).await;
        assert_eq!(healthy_for(&loops, |_| {}).await, None);
        leads.send_replace(true);
        tokio::task::yield_now().await;
        assert_eq!(healthy_for(&loops, |_| {}).await, Some(20), "from then on, passes are waited for");
        leads.send_replace(false);
        tokio::task::yield_now().await;
        assert_eq!(loops.problem(), None);
        drop(leads);
        tokio::task::yield_now().await;
        assert_eq!(healthy_for(&loops, |_| {}).await, None, "the process ends");
    }
}
