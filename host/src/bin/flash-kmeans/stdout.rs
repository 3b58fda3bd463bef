//! Results, for people or programs.
use crate::failure::Failure;
use flash_kmeans::Error;
use std::io::{ErrorKind, Write};

/// Prints `text` and a line's end. A reader that has gone, as `head` does, is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Io { path: "stdout".into(), source: e }.into())
        }
        _ => Ok(()),
    }
}

/// Prints `object` as one line of JSON.
pub(crate) fn print_json(object: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(object)
        .map_err(|e| Failure::from(Error::Io { path: "stdout".into(), source: e.into() }))?;
    print(&text)
}

/// A table row of the summary.
pub(crate) fn row(name: &str, value: impl std::fmt::Display) -> String {
    format!("  {name:<12}{value}\n")
}
