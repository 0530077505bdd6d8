//! Limits as the kernel gets them.

use cni_conf::error::Error;
use ipnet::IpNet;

use super::conf::{Limit, Scope};
use crate::host::Rtnl;
use crate::host::rtnl::{Band, Link, Side, TokenBucket};

/// How long packets may wait at the rate, as a part of a second: 25 ms, the Go plugin's.
const LATENCY: u64 = 40;

/// What a frame has beside the MTU: an Ethernet header with a VLAN tag.
const HEADER: u32 = 18;

/// The largest packet that one segmentation offload makes of many, in bytes, headers included.
const LARGEST_PACKET: u32 = 65_536 + HEADER;

/// How many frames may wait where the burst is less than one.
const FRAMES: u32 = 16;

/// The token bucket for a limit on packets of a link with this MTU.
///
/// The bucket holds a frame at least: a smaller one would let none pass. The queue is the Go plugin's, 25 ms at the rate
/// and the burst, as long as that takes no longer than a second to empty; with the bursts that Kubernetes asks for,
/// packets would wait in it for minutes.
pub(super) fn bucket(limit: Limit, mtu: u32) -> TokenBucket {
    let frame = mtu.saturating_add(HEADER);
    let frames = frame.saturating_mul(FRAMES);
    let second = u32::try_from(limit.rate).unwrap_or(u32::MAX);
    let share = if limit.burst < frame {
        frames
    } else {
        limit.burst.min(second.max(frames).max(LARGEST_PACKET))
    };
    let latency = u32::try_from(limit.rate / LATENCY).unwrap_or(u32::MAX);
    TokenBucket {
        rate: limit.rate,
        burst: limit.burst.max(frame),
        limit: latency.saturating_add(share),
    }
}

/// Limits what leaves a link, in place of whatever did. All or nothing; [`sort`] goes with it.
pub(super) fn begin(host: &Rtnl, link: &Link, limit: Limit, scope: &Scope) -> Result<(), Error> {
    let bucket = bucket(limit, link.mtu);
    let default = match scope {
        Scope::Everyone => return Ok(host.set_token_bucket(link.index, &bucket)?),
        Scope::AllBut(_) => Band::Shaped,
        Scope::Only(_) => Band::Free,
    };
    Ok(host.set_bands(link.index, default, &bucket)?)
}

/// Has what leaves a link wait or not by its addresses. `side` is where such packets have that of the other end.
pub(super) fn sort(host: &Rtnl, link: &Link, scope: &Scope, side: Side) -> Result<(), Error> {
    let (nets, band): (&[IpNet], _) = match scope {
        Scope::Everyone => return Ok(()),
        Scope::AllBut(nets) => (nets, Band::Free),
        Scope::Only(nets) => (nets, Band::Shaped),
    };
    for net in nets {
        // The kernel wants a number of its own for each protocol.
        let number = if net.addr().is_ipv4() { 16 } else { 15 };
        host.add_band_filter(link.index, number, side, net, band)?;
    }
    Ok(())
}

/// What limits a link now.
pub(super) fn current(
    host: &Rtnl,
    link: &Link,
    scope: &Scope,
) -> Result<Option<TokenBucket>, Error> {
    Ok(match scope {
        Scope::Everyone => host.token_bucket(link.index)?,
        Scope::AllBut(_) | Scope::Only(_) => host.bands_token_bucket(link.index)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_a_frame_and_the_queue_a_second() {
        for (rate, burst, expected_burst, expected_limit) in [
            // A burst that no frame fits into.
            (15, 57, 1518, 16 * 1518),
            (125_000, 10_000, 10_000, 125_000 / 40 + 10_000),
            (1_000_000, 100_000, 100_000, 125_000),
            // What containerd asks for.
            (
                1_250_000,
                u32::MAX / 8,
                u32::MAX / 8,
                1_250_000 / 40 + 1_250_000,
            ),
            (1_000, u32::MAX / 8, u32::MAX / 8, 1_000 / 40 + 65_554),
        ] {
            let bucket = bucket(Limit { rate, burst }, 1500);
            assert_eq!(
                (bucket.burst, bucket.limit),
                (expected_burst, expected_limit),
                "{rate}"
            );
        }
        let fast = Limit {
            rate: u64::MAX,
            burst: u32::MAX,
        };
        assert_eq!(bucket(fast, 65_535).limit, u32::MAX);
    }
}
