//! What plugins have in common that change an attachment which plugins before them made.

use cni_conf::addr::MacAddr;
use cni_conf::error::{Code, Error};
use cni_conf::names::IfName;
use cni_conf::request::Request;
use cni_conf::result::{CniResult, Interface};

use super::container::Container;
use super::veth;
use crate::host::Rtnl;
use crate::host::rtnl::Link;
use crate::owner::Owner;

/// The result of the plugins before this one, which ADD passes on with this plugin's changes.
pub fn previous(request: &Request) -> Result<&CniResult, Error> {
    request.prev_result.as_ref().ok_or_else(|| {
        Error::config(format!(
            "plugin {} has no \"prevResult\" to work on",
            request.plugin
        ))
        .with_details(format!(
            "{} changes what another plugin made: put it behind one that makes an interface, such as bridge or \
             ptp, in the \"plugins\" of a .conflist file",
            request.plugin
        ))
    })
}

/// The container's interface in a result; results before 0.3.0 have none.
pub fn interface<'a>(result: &'a mut CniResult, ifname: &IfName) -> Option<&'a mut Interface> {
    result
        .interfaces
        .iter_mut()
        .find(|interface| interface.name == ifname.as_str() && !interface.sandbox.is_empty())
}

/// The MAC address of the container's interface in a result.
pub fn mac_of(result: &CniResult, ifname: &IfName) -> Option<MacAddr> {
    let own = result
        .interfaces
        .iter()
        .find(|interface| interface.name == ifname.as_str() && !interface.sandbox.is_empty());
    own?.mac_addr()
}

/// The container's interface itself.
pub fn link(container: &Container, ifname: &IfName) -> Result<Link, Error> {
    find_link(container, ifname)?.ok_or_else(|| {
        Error::new(
            Code::UnknownContainer,
            format!(
                "interface {ifname} is missing in the container ({})",
                container.netns.path().display()
            ),
        )
        .with_details(
            "the plugin before this one should have made it: see the order of \"plugins\"",
        )
    })
}

/// The container's interface, if it is there.
pub fn find_link(container: &Container, ifname: &IfName) -> Result<Option<Link>, Error> {
    Ok(container.rtnl.link_by_name(ifname.as_str())?)
}

/// The host's end of an attachment's pair: by the alias that our plugins give it, or else, behind another's, as the
/// other end of the container's interface `inside`. `None` if there is none, or if it is another attachment's.
pub fn host_end(
    host: &Rtnl,
    owner: &Owner,
    container: &Container,
    inside: &Link,
) -> Result<Option<Link>, Error> {
    if let Some(end) = veth::find(host, owner)? {
        return Ok(Some(end));
    }
    let end = veth::other_end(host, container, inside)?;
    Ok(end.filter(|end| !end.alias.as_deref().is_some_and(Owner::alias_is_ours)))
}

#[cfg(test)]
mod tests {
    use cni_conf::version::SpecVersion;

    use super::*;

    #[test]
    fn a_plugin_that_stands_alone_is_told_where_it_belongs() {
        let request = Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "tuning".try_into().unwrap(),
            conf: serde_json::json!({}),
            cni_path: Vec::new(),
            prev_result: None,
        };
        let error = previous(&request).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig);
        assert!(error.msg.contains("prevResult") && error.details.contains("tuning"));
    }

    #[test]
    fn the_containers_interface_is_the_one_in_a_sandbox() {
        let named = |sandbox: &str| Interface {
            name: "eth0".into(),
            sandbox: sandbox.into(),
            ..Interface::default()
        };
        let mut result = CniResult {
            interfaces: vec![named(""), named("/run/netns/a")],
            ..CniResult::default()
        };
        let ifname = "eth0".try_into().unwrap();
        assert_eq!(
            interface(&mut result, &ifname).unwrap().sandbox,
            "/run/netns/a"
        );
        result.interfaces.truncate(1);
        assert!(interface(&mut result, &ifname).is_none());
    }
}
