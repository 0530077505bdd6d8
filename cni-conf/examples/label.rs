//! `label`: a chained plugin that gives the container's interface an alias, which `ip link` shows there.
//!
//! `{"type": "label", "text": "web server"}` behind another plugin of a list.

use std::process::{Command, ExitCode};

use cni_conf::dispatch::{self, Plugin};
use cni_conf::error::{Code, Error};
use cni_conf::json;
use cni_conf::request::{Attachment, AttachmentId, Environment, Request};
use cni_conf::result::CniResult;
use serde::Deserialize;

/// The keys of the configuration. Unknown ones are ignored, as libcni's users expect.
#[derive(Deserialize)]
struct Conf {
    text: String,
}

struct Label;

impl Plugin for Label {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        // Everything that can be refused is refused before anything is done.
        let conf: Conf = json::from_value(&request.conf)?;
        let result = request.prev_result.clone().ok_or_else(|| {
            Error::config("there is no prevResult")
                .with_details("put label behind a plugin that makes an interface")
        })?;
        ip(
            attachment,
            &[
                "link",
                "set",
                attachment.ifname.as_str(),
                "alias",
                &conf.text,
            ],
        )?;
        Ok(result)
    }

    fn del(&self, _: &Request, _: &Attachment) -> Result<(), Error> {
        Ok(()) // The alias goes with the interface.
    }

    fn check(&self, _: &Request, attachment: &Attachment) -> Result<(), Error> {
        ip(attachment, &["link", "show", attachment.ifname.as_str()])
    }

    fn gc(&self, _: &Request, _: &[AttachmentId]) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        json::from_value::<Conf>(&request.conf)?;
        Ok(())
    }
}

/// Runs `ip` in the container's namespace.
fn ip(attachment: &Attachment, arguments: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", attachment.netns()?.display()))
        .arg("ip")
        .args(arguments);
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Error::new(
            Code::Io,
            String::from_utf8_lossy(&output.stderr).trim(),
        )),
        Err(error) => Err(Error::new(Code::Io, format!("run nsenter: {error}"))),
    }
}

fn main() -> ExitCode {
    let (env, stdin) = (Environment::from_os(), std::io::stdin().lock());
    dispatch::serve("label", &Label, &env, stdin, &mut std::io::stdout().lock())
}
