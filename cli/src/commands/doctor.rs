//! `fanledger doctor`: what is well, what is not, and what to do about it.

mod checks;

use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::settings::{Settings, SettingsError};

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Works, and should be known.
    Warning,
    Failed,
}

/// One line of the answer.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do; empty where all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), remedy: String::new() }
    }

    fn warning(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, found: found.into(), remedy: remedy.into() }
    }

    fn failed(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Failed, found: found.into(), remedy: remedy.into() }
    }
}

#[derive(Serialize)]
struct Diagnosis<'a> {
    ok: bool,
    checks: &'a [Check],
}

/// Checks everything that can be checked from here.
///
/// # Errors
/// Only when the answer cannot be printed; what is wrong is the answer, and exit code 1.
pub async fn run(settings: Result<Settings, SettingsError>, output: Output) -> Result<Outcome, Failure> {
    let mut checks = Vec::new();
    match settings {
        Ok(settings) => checks::all(&settings, &mut checks).await,
        Err(error) => checks.extend(checks::settings_problems(&error)),
    }
    let ok = checks.iter().all(|check| check.verdict != Verdict::Failed);
    if output.is_json() {
        output.json(&Diagnosis { ok, checks: &checks })?;
    } else {
        for check in &checks {
            let mark = match check.verdict {
                Verdict::Ok => "ok     ",
                Verdict::Warning => "warning",
                Verdict::Failed => "FAILED ",
            };
            output.line(format_args!("{mark}  {:<12} {}", check.name, check.found))?;
            if !check.remedy.is_empty() {
                output.line(format_args!("{:>23}-> {}", "", check.remedy))?;
            }
        }
    }
    Ok(if ok { Outcome::Fine } else { Outcome::CheckFailed })
}
