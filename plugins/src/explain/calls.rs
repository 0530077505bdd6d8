//! How the runtime called a plugin for an attachment, put together again from its cache.

use cni_conf::request::{Attachment, CniArgs, Request};
use serde_json::{Map, Value};

use super::list::Member;
use super::network_conf::has_capability;
use super::survey::Attached;
use crate::owner::Owner;

/// The call that CHECK would be; none where the cache does not know the attachment's result or namespace.
///
/// As libcni does it: what the runtime asked for goes into `runtimeConfig`, by the capabilities of the plugin
/// (libcni/api.go, `injectRuntimeConfig`).
pub(crate) fn of(
    member: &Member,
    owner: &Owner,
    attached: &Attached,
) -> Option<(Request, Attachment)> {
    let cached = attached.cached.as_ref()?;
    let mut conf = member.request.conf.clone();
    let asked = cached.capabilities.as_object().into_iter().flatten();
    let runtime: Map<String, Value> = asked
        .filter(|(name, _)| has_capability(member, name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !runtime.is_empty() {
        conf["runtimeConfig"] = Value::Object(runtime);
    }
    let args: Vec<String> = cached
        .args
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let attachment = Attachment {
        container: owner.container.clone(),
        ifname: owner.ifname.clone(),
        netns: Some(cached.netns.first()?.clone()),
        args: CniArgs::parse(&args.join(";")).ok()?,
        netns_override: false,
    };
    let request = Request {
        conf,
        prev_result: Some(cached.result.clone()?),
        ..member.request.clone()
    };
    Some((request, attachment))
}
