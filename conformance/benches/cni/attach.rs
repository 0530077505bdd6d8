//! One container at a time: ADD and DEL as whole processes.

use std::thread;
use std::time::Duration;

use conformance::Pod;

use crate::process::{Call, Done};
use crate::stats::{Figures, Series};
use crate::subject::Network;

/// What the kernel puts off at a DEL should not be paid for by whoever comes next.
const SETTLE: Duration = Duration::from_millis(3);

/// A series that attaches and detaches a container in a namespace that stays.
pub(crate) fn series<'a>(case: &str, network: &'a Network, pod: &'a Pod) -> Series<'a> {
    let mut round = 0;
    Series::new(case, network.subject.who.name(), move || {
        round += 1;
        thread::sleep(SETTLE);
        add_and_del(network, pod, &format!("bench-{round}"))
    })
}

/// Milliseconds of an ADD and of a DEL.
fn add_and_del(network: &Network, pod: &Pod, container: &str) -> Result<Figures, String> {
    network.host.enter(|| {
        let mut clock = Clock::default();
        let attached = network.add(container, pod, &mut |call| clock.run(&call))?;
        let add = clock.reset();
        thread::sleep(SETTLE);
        network.del(&attached, &mut |call| clock.run(&call))?;
        let del = clock.reset();
        Ok(vec![
            ("ADD".to_owned(), milliseconds(add)),
            ("DEL".to_owned(), milliseconds(del)),
        ])
    })
}

/// Adds up what the processes of one verb take.
#[derive(Default)]
pub(crate) struct Clock(Duration);

impl Clock {
    pub(crate) fn run(&mut self, call: &Call) -> Result<Done, String> {
        let done = call.run()?;
        self.0 += done.took;
        Ok(done)
    }

    pub(crate) fn reset(&mut self) -> Duration {
        std::mem::take(&mut self.0)
    }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
