//! How a command of the command line fails: one type with an exit code, what went wrong, and the next thing to type. The
//! exit codes are part of the contract: scripts tell a refusal from a conflict and both from a server that is not there.

use std::error::Error;
use std::fmt;

use crate::output::Paint;

/// What the process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A check failed, or the server refused.
    Refused = 1,
    /// What was named cannot be looked at. A command line that makes no sense ends so too, but never gets this far: it is
    /// clap that refuses it.
    Usage = 2,
    /// No definite answer could be had.
    NotReachable = 3,
    /// Someone was faster, or the business says no: 409 or 412.
    Conflict = 4,
}

/// Why a command failed, for a person and for a script.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    details: Vec<String>,
    next: Vec<String>,
}

impl Failure {
    /// A failure with nothing behind it.
    pub(crate) fn plain(what: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, what: what.into(), details: Vec::new(), next: Vec::new() }
    }

    /// A failure with its cause, told with all that is behind it.
    pub(crate) fn of(what: impl Into<String>, fault: &dyn Error) -> Self {
        let mut told = what.into();
        let mut cause = Some(fault);
        while let Some(fault) = cause {
            let text = fault.to_string();
            // Some libraries print their source inside their own message; told once is enough.
            if !told.ends_with(&text) {
                told = format!("{told}: {text}");
            }
            cause = fault.source();
        }
        Self::plain(told)
    }

    /// Ending with this code.
    #[must_use]
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// With one more line below what happened.
    #[must_use]
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.details.push(detail.into());
        self
    }

    /// With something that can be done about it, best a line to type. May be said several times.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }

    /// The code to end with.
    pub(crate) fn code(&self) -> Exit {
        self.exit
    }

    /// All of it, in lines, as printed to stderr.
    pub(crate) fn report(&self, paint: Paint) -> String {
        let mut report = format!("{} {}\n", paint.bad("error:"), self.what);
        for detail in &self.details {
            report.push_str(&format!("  {detail}\n"));
        }
        for next in &self.next {
            report.push_str(&format!("  {} {next}\n", paint.dim("next:")));
        }
        report
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.details.iter().try_for_each(|detail| write!(f, "; {detail}"))
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_those_of_the_contract() {
        let codes = [Exit::Refused, Exit::Usage, Exit::NotReachable, Exit::Conflict].map(|exit| exit as u8);
        assert_eq!(codes, [1, 2, 3, 4]);
        assert_eq!(Failure::plain("no").code(), Exit::Refused);
    }

    #[test]
    fn a_failure_tells_what_lies_behind_it_and_what_to_type() {
        let cause = std::io::Error::other("the disk is gone");
        let failure = Failure::of("cannot open the log", &cause).detail("in /data").next("try --memory");
        assert_eq!(failure.to_string(), "cannot open the log: the disk is gone; in /data");
        assert_eq!(
            failure.report(Paint::never()),
            "error: cannot open the log: the disk is gone\n  in /data\n  next: try --memory\n"
        );
    }
}
