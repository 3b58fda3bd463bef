//! An implementation under measurement: a process that takes jobs and gives answers, a line of JSON each.
//!
//! All are processes, this project's own too: what one of them breaks, its memory or the GPU's context, stays its own.
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;

/// How an implementation is started.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    /// Where its standard error goes.
    pub(crate) log: PathBuf,
}

pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Program {
    fn command(&self) -> Result<Command> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log: File = log.map_err(|error| format!("cannot write {}: {error}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        // Peers' scripts leave nothing beside themselves.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        Ok(command)
    }

    pub(crate) fn start(&self) -> Result<Process> {
        let cannot = |error| format!("cannot run {}: {error}", self.program.display());
        let mut child = self.command()?.spawn().map_err(cannot)?;
        let output = child.stdout.take().expect("asked for");
        let (sender, answers) = channel();
        // Ends with the process, or when nobody listens any more.
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let input = child.stdin.take();
        Ok(Process { child, input, answers })
    }

    /// Milliseconds from the start of a process to the answer to its first job.
    pub(crate) fn time_cold(&self, job: &Value, limit: Duration) -> Result<(f64, Value)> {
        let start = Instant::now();
        let mut process = self.start()?;
        let answer = process.ask(job, limit)?;
        Ok((start.elapsed().as_secs_f64() * 1e3, answer))
    }
}

impl Process {
    pub(crate) fn send(&mut self, job: &Value) -> Result<()> {
        let input = self.input.as_mut().ok_or("the process has ended")?;
        writeln!(input, "{job}").and_then(|()| input.flush()).map_err(|_| self.ending())
    }

    /// Waits for the answer to a job that was sent. After an error the process is of no more use.
    pub(crate) fn answer(&mut self, limit: Duration) -> Result<Value> {
        match self.answers.recv_timeout(limit) {
            Ok(line) => serde_json::from_str(&line).map_err(|_| format!("answered with no JSON: {line}")),
            Err(RecvTimeoutError::Timeout) => Err(format!("no answer in {} s", limit.as_secs())),
            Err(RecvTimeoutError::Disconnected) => Err(self.ending()),
        }
    }

    pub(crate) fn ask(&mut self, job: &Value, limit: Duration) -> Result<Value> {
        self.send(job)?;
        self.answer(limit)
    }

    fn ending(&mut self) -> String {
        match self.child.wait() {
            Ok(status) => format!("the process ended: {status}"),
            Err(error) => format!("the process ended: {error}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that is waiting for a job ends by itself; one that is not gets no say.
        let _ = self.send(&json!({"op": "quit"}));
        self.input = None;
        for _ in 0..20 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, folder: &std::path::Path) -> Program {
        Program {
            name: "shell".into(),
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            log: folder.join("log"),
        }
    }

    #[test]
    fn answers_deaths_and_silence_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let second = Duration::from_secs(20);

        let mut echo = shell("while read -r line; do echo \"$line\"; done", folder.path()).start().unwrap();
        let job = json!({"op": "x", "value": 3});
        assert_eq!(echo.ask(&job, second).unwrap(), job);
        assert_eq!(echo.ask(&job, second).unwrap(), job);

        let mut dead = shell("echo why >&2; exit 3", folder.path()).start().unwrap();
        let error = dead.answer(second).unwrap_err();
        assert!(error.contains("ended") && error.contains('3'), "{error}");
        assert_eq!(std::fs::read_to_string(folder.path().join("log")).unwrap(), "why\n");

        let mut chatty = shell("echo hello", folder.path()).start().unwrap();
        assert!(chatty.answer(second).unwrap_err().contains("no JSON: hello"));

        let mut silent = shell("exec sleep 600", folder.path()).start().unwrap();
        let begin = Instant::now();
        assert!(silent.answer(Duration::from_millis(10)).unwrap_err().contains("no answer"));
        drop(silent);
        assert!(begin.elapsed() < Duration::from_secs(60));
    }
}
