//! Packets that are too large for a part of their way.

use crate::explain::kernel::Kernel;
use crate::explain::report::Finding;
use crate::explain::survey::{Observed, Survey, View};
use crate::host::rtnl::Link;

pub(super) fn mismatch(survey: &Survey) -> Observed<Vec<Finding>> {
    let kernel = survey.kernel()?;
    let mut findings = Vec::new();
    for network in &survey.networks {
        let ends: Vec<&Link> = survey
            .living(&network.name)
            .filter_map(|(_, it)| kernel.link(it.end?))
            .collect();
        let Some(largest) = ends.iter().max_by_key(|link| link.mtu) else {
            continue;
        };
        findings.extend(within_bridge(network, &ends));
        if network.is_routed() {
            findings.extend(on_the_way(network, largest, kernel));
        }
    }
    Ok(findings)
}

/// Between ports of one bridge nobody tells the sender that a packet is too large.
fn within_bridge(network: &View, ends: &[&Link]) -> Option<Finding> {
    network.bridge()?;
    let (least, most) = (
        ends.iter().min_by_key(|it| it.mtu)?,
        ends.iter().max_by_key(|it| it.mtu)?,
    );
    if least.mtu == most.mtu {
        return None;
    }
    Some(
        Finding::warn("mtu-mismatch", format!("large packets between containers of {} are lost", network.name))
            .of(&network.name)
            .seen(format!("{} has an MTU of {}", most.name, most.mtu))
            .seen(format!("{} has an MTU of {}", least.name, least.mtu))
            .because("the containers were started with different \"mtu\" in the list; a bridge drops what is too large for a port, and tells nobody")
            .remedy("start the older ones anew, or give all the same MTU by hand"),
    )
}

/// Where containers send larger packets than what their way out takes. The host tells the sender, whose packets must then be
/// smaller; where a firewall keeps that message away, connections hang.
fn on_the_way(network: &View, end: &Link, kernel: &Kernel) -> Option<Finding> {
    let uplinks = [false, true].into_iter().filter_map(|v6| kernel.uplink(v6));
    let between = kernel.routes.iter().filter(|route| {
        network
            .subnets
            .iter()
            .any(|own| super::masquerade::is_between_nodes(route, *own))
    });
    let narrow = between
        .filter_map(|route| kernel.link(route.oif?))
        .chain(uplinks)
        .filter(|link| link.mtu < end.mtu)
        .min_by_key(|link| link.mtu)?;
    Some(
        Finding::warn("mtu-mismatch", format!("containers of {} send packets that are too large for {}", network.name, narrow.name))
            .of(&network.name)
            .seen(format!("{} has an MTU of {}", end.name, end.mtu))
            .seen(format!("{}, by which they leave, has one of {}", narrow.name, narrow.mtu))
            .because("where the message that says so is kept away by a firewall, small requests work and large ones hang")
            .remedy(format!("set \"mtu\": {} in {}; new containers get it", narrow.mtu, network.path.display())),
    )
}
