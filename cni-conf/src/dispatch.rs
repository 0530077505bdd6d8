//! From a process's input to a plugin and back: the part of the protocol that all plugins share.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde_json::json;

use crate::diagnostics::warn;
use crate::error::{Code, Error};
use crate::request::{self, Attachment, AttachmentId, CONFIG_MAX, Call, Environment, Request};
use crate::result::CniResult;
use crate::version::SpecVersion;

/// A CNI plugin. The verbs are those of the specification; VERSION is answered for every plugin alike.
///
/// DEL and GC are total: they clean what is there, carry on after an error, and return the errors joined.
pub trait Plugin: Sync {
    /// Attaches the container. On an error nothing is left behind.
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error>;

    /// Removes what ADD made, or whatever is left of it. Nothing to remove is no error.
    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error>;

    /// Compares what is there with `prev_result`, which is always present.
    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error>;

    /// Removes what belongs to this network and to no attachment of `valid`.
    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error>;

    /// Says whether ADD can be served.
    fn status(&self, request: &Request) -> Result<(), Error>;
}

/// Runs one verb of a plugin.
pub fn call(
    plugin: &dyn Plugin,
    request: &Request,
    call: &Call,
) -> Result<Option<CniResult>, Error> {
    match call {
        Call::Add(attachment) => plugin.add(request, attachment).map(Some),
        Call::Del(attachment) => plugin.del(request, attachment).map(|()| None),
        Call::Check(attachment) => plugin.check(request, attachment).map(|()| None),
        Call::Gc(Some(valid)) => plugin.gc(request, valid).map(|()| None),
        Call::Gc(None) => {
            warn("GC without \"cni.dev/valid-attachments\": nothing is known, nothing is removed");
            Ok(None)
        }
        Call::Status => plugin.status(request).map(|()| None),
    }
}

/// A call that has been served, for who keeps a log of them.
#[derive(Debug)]
pub struct Served<'a> {
    /// The plugin.
    pub plugin: &'a str,
    /// The value of CNI_COMMAND.
    pub verb: &'a str,
    /// The call, as far as it could be read.
    pub received: Option<&'a (Request, Call)>,
    /// What it ended with, if not well.
    pub error: Option<&'a Error>,
}

/// Serves one call of the plugin called `name`: verb from the environment, configuration from `stdin`, result or
/// error object to `stdout`. The exit status is 0 or 1. An attachment whose result can't be written is removed again.
pub fn serve(
    name: &str,
    plugin: &dyn Plugin,
    env: &Environment,
    stdin: impl Read,
    stdout: &mut impl Write,
) -> ExitCode {
    serve_and_log(name, plugin, env, stdin, stdout, &mut |_| {})
}

/// The same, and tells of the call once it is answered.
pub fn serve_and_log(
    name: &str,
    plugin: &dyn Plugin,
    env: &Environment,
    stdin: impl Read,
    stdout: &mut impl Write,
    tell: &mut dyn FnMut(&Served<'_>),
) -> ExitCode {
    let Some(verb) = env.get("CNI_COMMAND") else {
        explain(name);
        return ExitCode::SUCCESS;
    };
    let mut version = SpecVersion::LATEST;
    let mut received = None;
    let verb = verb.to_string_lossy();
    let answer = match &*verb {
        "VERSION" => answer_version(stdin),
        verb => answer(name, verb, plugin, env, stdin, &mut version, &mut received),
    };
    let status = match &answer {
        Ok(text) => write_answer(stdout, text, ExitCode::SUCCESS),
        Err(error) => answer_error(error, version, stdout),
    };
    if answer.is_ok() && status != ExitCode::SUCCESS {
        roll_back(plugin, received.as_ref());
    }
    if verb != "VERSION" {
        tell(&Served {
            plugin: name,
            verb: &verb,
            received: received.as_ref(),
            error: answer.as_ref().err(),
        });
    }
    status
}

/// Removes an attachment of which nobody heard: to the runtime, ADD has failed.
fn roll_back(plugin: &dyn Plugin, received: Option<&(Request, Call)>) {
    if let Some((request, Call::Add(attachment))) = received
        && let Err(error) = plugin.del(request, attachment)
    {
        warn(error);
    }
}

/// Ends a call with an error object.
pub fn answer_error(error: &Error, version: SpecVersion, stdout: &mut impl Write) -> ExitCode {
    write_answer(stdout, &error.to_json(version), ExitCode::FAILURE)
}

fn write_answer(stdout: &mut impl Write, text: &str, status: ExitCode) -> ExitCode {
    match write_line(stdout, text) {
        Ok(()) => status,
        Err(error) => {
            warn(format_args!("write the answer to stdout: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn write_line(stdout: &mut impl Write, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    stdout.write_all(format!("{text}\n").as_bytes())?;
    stdout.flush()
}

fn answer(
    name: &str,
    verb: &str,
    plugin: &dyn Plugin,
    env: &Environment,
    stdin: impl Read,
    version: &mut SpecVersion,
    received: &mut Option<(Request, Call)>,
) -> Result<String, Error> {
    let (conf, found) = request::parse_config(&read_stdin(stdin)?)?;
    *version = found?;
    let (request, parsed) = received.insert(request::parse(verb, env, conf, *version)?);
    let result = call(plugin, request, parsed).map_err(|error| match parsed {
        // An IPAM plugin has the configuration of the plugin that asks it, which says the same.
        Call::Status if request.plugin.as_str() == name => from_list(request, error),
        _ => error,
    })?;
    Ok(result
        .map(|result| result.to_json(*version))
        .unwrap_or_default())
}

/// An error of STATUS as it should reach a node's status. libcni says of other verbs which plugin failed, but passes
/// this one on as it is.
fn from_list(request: &Request, error: Error) -> Error {
    Error {
        msg: format!(
            "plugin {} of network {}: {}",
            request.plugin, request.network, error.msg
        ),
        ..error
    }
}

/// VERSION echoes `cniVersion`; an empty stdin is accepted, since people try it by hand.
fn answer_version(stdin: impl Read) -> Result<String, Error> {
    let input = read_stdin(stdin)?;
    let version = if input.trim_ascii().is_empty() {
        SpecVersion::LATEST
    } else {
        request::parse_config(&input)?
            .1
            .unwrap_or(SpecVersion::LATEST)
    };
    let answer = json!({"cniVersion": version, "supportedVersions": SpecVersion::ALL});
    Ok(answer.to_string())
}

fn read_stdin(stdin: impl Read) -> Result<Vec<u8>, Error> {
    let mut input = Vec::new();
    let limit = u64::try_from(CONFIG_MAX)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    stdin.take(limit).read_to_end(&mut input).map_err(|error| {
        Error::new(
            Code::Io,
            format!("read the configuration from stdin: {error}"),
        )
    })?;
    Ok(input)
}

/// What a person sees who runs a plugin by hand.
fn explain(name: &str) {
    let _ = writeln!(
        io::stderr(),
        "CNI plugin {name} of trestle {}: container runtimes run it with CNI_COMMAND and other variables set and \
         a network configuration on stdin; supported CNI versions: {}. Try `trestle --help`.",
        env!("CARGO_PKG_VERSION"),
        SpecVersion::list(),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Answers ADD with one address and everything else with what it was told.
    struct Fixed(Result<(), Error>);

    impl Plugin for Fixed {
        fn add(&self, _: &Request, _: &Attachment) -> Result<CniResult, Error> {
            self.0.clone().map(|()| CniResult::default())
        }
        fn del(&self, _: &Request, _: &Attachment) -> Result<(), Error> {
            self.0.clone()
        }
        fn check(&self, _: &Request, _: &Attachment) -> Result<(), Error> {
            self.0.clone()
        }
        fn gc(&self, _: &Request, _: &[AttachmentId]) -> Result<(), Error> {
            self.0.clone()
        }
        fn status(&self, _: &Request) -> Result<(), Error> {
            self.0.clone()
        }
    }

    fn run(verb: Option<&str>, outcome: Result<(), Error>, stdin: &str) -> (ExitCode, String) {
        let env = [
            ("CNI_CONTAINERID", "c"),
            ("CNI_NETNS", "/n"),
            ("CNI_IFNAME", "e"),
            ("CNI_PATH", "/p"),
        ]
        .into_iter()
        .chain(verb.map(|verb| ("CNI_COMMAND", verb)))
        .collect();
        let mut stdout = Vec::new();
        let status = serve(
            "bridge",
            &Fixed(outcome),
            &env,
            stdin.as_bytes(),
            &mut stdout,
        );
        (status, String::from_utf8(stdout).unwrap())
    }

    const CONF: &str = r#"{"cniVersion": "0.4.0", "name": "n", "type": "t"}"#;

    #[test]
    fn a_result_goes_to_stdout_in_the_version_of_the_request() {
        let (status, stdout) = run(Some("ADD"), Ok(()), CONF);
        assert_eq!(status, ExitCode::SUCCESS);
        let json: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(json["cniVersion"], "0.4.0");
    }

    #[test]
    fn verbs_without_a_result_print_nothing() {
        assert_eq!(
            run(Some("DEL"), Ok(()), CONF),
            (ExitCode::SUCCESS, String::new())
        );
    }

    #[test]
    fn an_error_goes_to_stdout_as_an_object_with_status_1() {
        for verb in ["ADD", "DEL"] {
            let (status, stdout) = run(
                Some(verb),
                Err(Error::config("no").with_details("yes")),
                CONF,
            );
            assert_eq!(status, ExitCode::FAILURE);
            let json: Value = serde_json::from_str(&stdout).unwrap();
            assert_eq!(
                json,
                json!({"cniVersion": "0.4.0", "code": 7, "msg": "no", "details": "yes"})
            );
        }
        let (status, stdout) = run(Some("NOPE"), Ok(()), CONF);
        assert!(
            status == ExitCode::FAILURE && stdout.contains("\"code\": 4"),
            "{stdout}"
        );
        let (_, stdout) = run(Some("ADD"), Ok(()), "[1]");
        assert!(stdout.contains("\"code\": 6"), "{stdout}");
    }

    #[test]
    fn an_error_of_status_names_plugin_and_network_once() {
        let msg = |plugin: &str| {
            let conf = json!({"cniVersion": "1.1.0", "name": "net", "type": plugin});
            let (_, stdout) = run(Some("STATUS"), Err(Error::config("no")), &conf.to_string());
            let json: Value = serde_json::from_str(&stdout).unwrap();
            json["msg"].clone()
        };
        assert_eq!(msg("bridge"), "plugin bridge of network net: no");
        assert_eq!(msg("macvlan"), "no", "bridge is the IPAM plugin of another");
    }

    #[test]
    fn version_lists_every_version_and_echoes_the_configurations() {
        for (stdin, expected) in [
            ("", "1.1.0"),
            (r#"{"cniVersion":"0.3.1"}"#, "0.3.1"),
            ("{}", "0.1.0"),
        ] {
            let (status, stdout) = run(Some("VERSION"), Ok(()), stdin);
            assert_eq!(status, ExitCode::SUCCESS);
            let json: Value = serde_json::from_str(&stdout).unwrap();
            assert_eq!(json["cniVersion"], expected);
            assert_eq!(
                json["supportedVersions"].as_array().unwrap().len(),
                SpecVersion::ALL.len()
            );
        }
    }

    #[test]
    fn without_a_verb_the_plugin_explains_itself_on_stderr_only() {
        assert_eq!(run(None, Ok(()), ""), (ExitCode::SUCCESS, String::new()));
    }
}
