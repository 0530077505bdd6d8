//! What only sysfs tells of links.

use std::fs;

/// `NET_ADDR_SET` of include/uapi/linux/netdevice.h.
const SET: &str = "3";

/// Whether somebody gave the link its hardware address, at creation or later. A bridge without such an address takes the
/// lowest one of its ports, and another one when they change (`br_stp_recalculate_bridge_id` in net/bridge/br_stp_if.c).
/// None where sysfs does not tell, as where it is not mounted.
///
/// A sysfs shows the links of the network namespace that it was mounted in.
pub fn has_own_mac(link: &str) -> Option<bool> {
    let file = format!("/sys/class/net/{link}/addr_assign_type");
    let kind = fs::read_to_string(file).ok()?;
    Some(kind.trim_end() == SET)
}
