//! CHECK: what the configuration asked for is what the container has.

use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};

use super::conf::{Setting, Settings};
use crate::attach::chained;
use crate::attach::check::failed;
use crate::attach::container::Container;

pub(super) fn check(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let settings = Settings::read(request, Some(attachment))?;
    let container = Container::open(attachment)?;
    for setting in &settings.sysctls {
        let value = match container.with_sysctls(|procfs| Ok(setting.sysctl.read_in(procfs)))? {
            Ok(value) => value,
            Err(error) if error.not_found() => return Err(failed(error.to_string())),
            // Some can only be written.
            Err(_) => continue,
        };
        if !is_same(setting, &value) {
            return Err(failed(format!(
                "sysctl {} is {value:?}, not {:?}",
                setting.sysctl, setting.value
            )));
        }
    }
    if settings.attributes.is_empty() {
        return Ok(());
    }
    let Some(link) = chained::find_link(&container, &attachment.ifname)? else {
        return Err(failed(format!(
            "interface {} is missing in the container",
            attachment.ifname
        )));
    };
    let now = settings.attributes.of(&link)?;
    match settings.attributes.differences(&now).as_slice() {
        [] => Ok(()),
        differences => Err(failed(format!(
            "interface {}: {}",
            link.name,
            differences.join(", ")
        ))),
    }
}

/// The kernel puts tabs between several numbers, people put blanks.
fn is_same(setting: &Setting, value: &str) -> bool {
    setting
        .value
        .split_whitespace()
        .eq(value.split_whitespace())
}
