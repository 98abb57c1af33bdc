//! How a command ends: the exit codes of the contract, and errors printed once, with their causes.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::output::is_reader_gone;

/// How a command that ran ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well; exit code 0.
    Fine,
    /// The check failed: a difference, a tamper, an imbalance, a refusal; exit code 1.
    CheckFailed,
}

/// Why a command did not run.
#[derive(Debug)]
pub enum Failure {
    /// The question makes no sense as asked; exit code 2.
    Usage(Box<dyn Error + Send + Sync>),
    /// Something that was needed was not there or broke; exit code 3.
    CouldNotRun(Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// A usage error.
    pub fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Usage(error.into())
    }

    /// What went wrong, whichever kind it is.
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        match self {
            Self::Usage(error) | Self::CouldNotRun(error) => error.as_ref(),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::CouldNotRun(Box::new(error))
    }
}

/// Prints what there is to print and chooses the exit code. The only place where an error of a command is printed.
pub fn conclude(result: Result<Outcome, Failure>) -> ExitCode {
    match result {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::CheckFailed) => ExitCode::from(1),
        // `fanledger journal tail | head`: the reader has what it wanted.
        Err(failure) if is_reader_gone(failure.error()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = describe(failure.error());
            // When even stderr is gone there is nobody left to tell.
            io::stderr().write_all(text.as_bytes()).ok();
            match failure {
                Failure::Usage(_) => ExitCode::from(2),
                Failure::CouldNotRun(_) => ExitCode::from(3),
            }
        }
    }
}

/// An error and its causes, one a line. A cause that its effect already quotes is not said twice.
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = format!("error: {error}\n");
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        if !said.contains(&line) {
            text.push_str(&format!("  because: {line}\n"));
            said = line;
        }
        cause = error.source();
    }
    text
}

/// The same in one line.
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    describe(error).trim_start_matches("error: ").trim_end().replace("\n  because: ", ": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::sink::SinkError;

    #[derive(Debug, thiserror::Error)]
    #[error("open the books")]
    struct Outer(#[source] io::Error);

    #[test]
    fn causes_are_named_once_each() {
        let error = Outer(io::Error::new(io::ErrorKind::NotFound, "no such shelf"));
        assert_eq!(describe(&error), "error: open the books\n  because: no such shelf\n");
    }

    #[test]
    fn a_broken_pipe_to_anything_but_standard_output_is_a_failure() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        for failure in [
            Failure::from(Outer(broken())),
            Failure::from(sqlx::Error::Io(broken())),
            Failure::from(SinkError::Write { place: "/tmp/pipe".into(), source: broken() }),
        ] {
            assert!(!is_reader_gone(failure.error()), "{failure:?}");
        }
    }
}
