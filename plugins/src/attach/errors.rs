//! From failures of the kernel's side to the protocol's error objects.

use cni_conf::error::{Code, Error};

use crate::host::HostError;

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        let code = match &error {
            HostError::NetNsMissing { .. }
            | HostError::NotANetNs { .. }
            | HostError::NetNsOpen { .. } => Code::InvalidEnvironment,
            HostError::Unsupported { .. } => Code::KernelFeature,
            HostError::ProgramMissing { .. } => Code::MissingTool,
            HostError::Invalid { .. } => Code::InvalidConfig,
            HostError::DuplicateAddress { .. } | HostError::Foreign { .. } => Code::Conflict,
            HostError::Timeout { .. }
            | HostError::Crossed { .. }
            | HostError::DumpInterrupted { .. }
            | HostError::Locked { .. }
            | HostError::ProgramHung { .. } => Code::TryAgainLater,
            HostError::Netlink { .. }
            | HostError::System { .. }
            | HostError::Protocol { .. }
            | HostError::NetNsEnter { .. }
            | HostError::LinkMissing { .. }
            | HostError::ProgramFailed { .. }
            | HostError::ServiceRefused { .. }
            | HostError::Sysctl { .. } => Code::Kernel,
        };
        let msg = match code {
            Code::InvalidEnvironment => format!("CNI_NETNS: {error}"),
            _ => error.to_string(),
        };
        let report = Self::new(code, msg);
        match error.remedy() {
            Some(remedy) => report.with_details(remedy),
            None => report,
        }
    }
}

/// Settings that a kernel without the protocol lacks are no loss.
pub fn ignore_not_found<T>(outcome: Result<T, HostError>) -> Result<(), HostError> {
    match outcome {
        Err(error) if error.not_found() => Ok(()),
        outcome => outcome.map(drop),
    }
}
