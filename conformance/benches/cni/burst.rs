//! Many containers at once, as when a node starts.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use conformance::Pod;
use serde_json::Value;

use crate::attach::milliseconds;
use crate::stats::Series;
use crate::subject::{Attached, Network};

/// Time for the kernel to finish what it put off.
const SETTLE: Duration = Duration::from_millis(100);

/// A series that attaches all pods, so many at a time, and detaches them again. The figures are milliseconds for
/// all of them together.
pub(crate) fn series<'a>(
    case: String,
    network: &'a Network,
    pods: &'a [Pod],
    workers: usize,
) -> Series<'a> {
    Series::new(case, network.subject.who.name(), move || {
        thread::sleep(SETTLE);
        let start = Instant::now();
        let attached = attach_all(network, pods, workers)?;
        let add = start.elapsed();
        thread::sleep(SETTLE);
        let start = Instant::now();
        detach_all(network, &attached, workers)?;
        let del = start.elapsed();
        Ok(vec![
            ("ADD".to_owned(), milliseconds(add)),
            ("DEL".to_owned(), milliseconds(del)),
        ])
    })
}

/// Attaches every pod, so many at a time.
pub(crate) fn attach_all(
    network: &Network,
    pods: &[Pod],
    workers: usize,
) -> Result<Vec<Attached>, String> {
    attach_all_by(&network.chain(), network, pods, workers)
}

/// The same by other plugins than the network's.
pub(crate) fn attach_all_by(
    chain: &[Value],
    network: &Network,
    pods: &[Pod],
    workers: usize,
) -> Result<Vec<Attached>, String> {
    for_each(network, pods, workers, |pod| {
        network.add_by(chain, &pod.name, pod, &mut |call| call.run())
    })
}

fn detach_all(network: &Network, attached: &[Attached], workers: usize) -> Result<(), String> {
    for_each(network, attached, workers, |one| {
        network.del(one, &mut |call| call.run())
    })?;
    Ok(())
}

/// Does something with each item on so many threads inside the network's host; stops at the first error.
fn for_each<T: Sync, R: Send>(
    network: &Network,
    items: &[T],
    workers: usize,
    work: impl Fn(&T) -> Result<R, String> + Sync,
) -> Result<Vec<R>, String> {
    let queue = Mutex::new(items.iter());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let one_worker = || {
        let mut results = Vec::new();
        while let Some(item) = next() {
            results.push(work(item)?);
        }
        Ok(results)
    };
    network.host.enter(|| {
        // Threads inherit the namespaces of the one that starts them.
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(one_worker)).collect();
            let mut all = Vec::new();
            for thread in threads {
                let results: Result<Vec<R>, String> =
                    thread.join().map_err(|_| "a worker panicked".to_owned())?;
                all.extend(results?);
            }
            Ok(all)
        })
    })
}
