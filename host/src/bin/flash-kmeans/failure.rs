//! Why the command ends without a result, and what its exit code says about it.
use flash_kmeans::Error;
use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Exit code 2: nothing was written, and the same command will fail again.
    BadInput,
    /// Exit code 1.
    RunTime,
    /// Exit code 130: Ctrl-C.
    Stopped,
}

/// A message for people, with what to do next where that is known.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Failure { kind: Kind::BadInput, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts the name of a file before the message.
    pub(crate) fn of(mut self, name: &str) -> Self {
        self.message = format!("{name}: {}", self.message);
        self
    }

    pub(crate) fn code(&self) -> u8 {
        match self.kind {
            Kind::RunTime => 1,
            Kind::BadInput => 2,
            Kind::Stopped => 130,
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// An error of a file that the command line named and that is opened or tried before the work begins.
pub(crate) fn bad_file(error: Error) -> Failure {
    Failure { kind: Kind::BadInput, ..error.into() }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (kind, hint) = match &error {
            Error::BackendUnavailable { .. } => (
                Kind::BadInput,
                Some("use --backend cpu or --backend auto; `flash-kmeans devices` lists what there is"),
            ),
            Error::NonFinite { what: "points", .. } => {
                (Kind::BadInput, Some("remove such rows, or give them values"))
            }
            Error::TooManyClusters { .. } => (Kind::BadInput, Some("ask for fewer clusters with -k")),
            Error::InvalidArgument { .. }
            | Error::Shape { .. }
            | Error::NonFinite { .. }
            | Error::Format { .. } => (Kind::BadInput, None),
            Error::OutOfDeviceMemory { .. } => {
                (Kind::RunTime, Some("use --backend cpu, or halve the points with --dtype f16 or bf16"))
            }
            Error::OutOfMemory { .. } => (Kind::RunTime, Some("give the points less with --memory")),
            Error::Stopped { .. } => (Kind::Stopped, None),
            Error::Cuda { .. } => (Kind::RunTime, Some("--backend cpu does not need the device")),
            _ => (Kind::RunTime, None),
        };
        Failure { kind, message: error.to_string(), hint: hint.map(str::to_string) }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}
