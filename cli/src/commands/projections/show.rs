//! What operators see of runners, rebuilds and proofs.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use fanledger_journal::event::Position;
use fanledger_journal::generation::{
    Difference, Phase, Presence, Progress, Proof, Purpose, RebuildError, Rebuilt, TableProof,
};
use fanledger_journal::operation::OperationStatus;
use fanledger_journal::runner::{GenerationState, RunnerState, RunnerStatus};
use indicatif::ProgressStyle;
use serde::Serialize;
use tokio::sync::watch;

use super::Line;
use crate::failure::describe;
use crate::output::{Align, Output, OutputError};

/// How often a log gets a line while one phase goes on.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// A worker writes twice a second; who was not heard of for so long is gone.
const SILENCE_SECONDS: i64 = 5;

pub(super) fn status(lines: &[Line], output: Output) -> Result<(), OutputError> {
    if lines.is_empty() {
        return output.line("No projection has run yet: start `fanledger dev`, or the roles projector and manager.");
    }
    let columns = [
        ("name", Align::Left),
        ("version", Align::Right),
        ("generation", Align::Right),
        ("state", Align::Left),
        ("position", Align::Right),
        ("head", Align::Right),
        ("behind", Align::Right),
        ("seconds", Align::Right),
    ];
    output.table(&columns, lines.iter().map(|line| row(&line.runner)).collect())?;
    for line in lines {
        let runner = &line.runner;
        if let Some(halt) = &runner.error {
            let at = halt.at.to_rfc3339_opts(SecondsFormat::Secs, true);
            output.line("")?;
            output.line(format_args!("{} halted at {at}: {halt}", runner.name))?;
        }
        beside(line, output)?;
    }
    Ok(())
}

/// The generations that are not live, what is being done with them, and what was asked for last if it failed.
fn beside(line: &Line, output: Output) -> Result<(), OutputError> {
    let runner = &line.runner;
    let name = &runner.name;
    for other in &runner.generations {
        let (generation, version, position) = (other.generation, other.version, other.position);
        match other.state {
            GenerationState::Live => continue,
            GenerationState::Kept if other.halted => output.line(format_args!(
                "\n{name} keeps generation {generation} (version {version}), halted at position {position}, so that nobody can go back \
                 to it: `retire {name}` drops it."
            ))?,
            GenerationState::Kept => output.line(format_args!(
                "\n{name} keeps generation {generation} (version {version}) at position {position}: `rollback {name}` \
                 goes back to it, `retire {name}` drops it."
            ))?,
            GenerationState::Retiring => output.line(format_args!(
                "\n{name}: generation {generation} (version {version}) is being dropped; `retire {name}` goes on with it."
            ))?,
            GenerationState::Building => {
                let doing = match &line.operation {
                    Some(operation) if (Utc::now() - operation.updated_at).num_seconds() < SILENCE_SECONDS => {
                        let loading = operation.phase == Phase::Loading.as_str();
                        let left = operation.seconds_left.filter(|_| loading);
                        format!(
                            "{} at position {} of {}{}",
                            words(&operation.phase),
                            operation.position,
                            operation.target,
                            rate(operation.events_per_second, left)
                        )
                    }
                    _ => format!(
                        "at position {position}, and nobody goes on with it: `rebuild {name}` does, `retire {name}` drops it"
                    ),
                };
                output.line(format_args!("\n{name} builds generation {generation} (version {version}): {doing}."))?;
            }
        }
    }
    match &line.operation {
        Some(operation) if operation.phase == Phase::Failed.as_str() => failed(operation, output),
        Some(_) | None => Ok(()),
    }
}

/// The last operation on a runner, which failed: said until another takes its place.
fn failed(operation: &OperationStatus, output: Output) -> Result<(), OutputError> {
    let OperationStatus { name, kind, .. } = operation;
    let at = operation.updated_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let why = operation.error.as_deref().unwrap_or("no reason was written down");
    output.line(format_args!(
        "\n{name}: the last {kind} failed at {at}: {why}. The live tables are as they were; ask for it again when the reason is gone."
    ))
}

fn words(phase: &str) -> String {
    phase.replace('_', " ")
}

fn row(runner: &RunnerStatus) -> Vec<String> {
    let state = match runner.state {
        RunnerState::Live => "live",
        RunnerState::CatchingUp => "catching up",
        RunnerState::Halted => "halted",
        RunnerState::Paused => "paused",
    };
    vec![
        runner.name.clone(),
        runner.version.to_string(),
        runner.generation.to_string(),
        state.to_owned(),
        runner.position.to_string(),
        runner.head.to_string(),
        runner.lag_events.to_string(),
        format!("{:.1}", runner.lag_seconds),
    ]
}

/// A line of progress for programs.
#[derive(Serialize)]
struct ProgressLine {
    name: &'static str,
    #[serde(flatten)]
    progress: Progress,
}

/// Shows how far it is for as long as it is polled: a bar on a terminal, JSON lines, or a plain line now and then. Returns only
/// when nothing more can be printed.
pub(super) async fn progress(
    name: &'static str,
    mut progress: watch::Receiver<Progress>,
    output: Output,
) -> OutputError {
    let bar = output.bar(0, name);
    // The worker knows its rate better than the bar, which has no notion of phases.
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len}") {
        bar.set_style(style);
    }
    let plain = !output.is_json() && !io::stderr().is_terminal();
    let mut said: Option<(Phase, Instant)> = None;
    while progress.changed().await.is_ok() {
        let now = *progress.borrow_and_update();
        if now.target == Position::START {
            // It does not know yet how far it has to go.
            continue;
        }
        bar.set_length(now.target.get());
        bar.set_position(now.position.get());
        bar.set_message(format!("{name}: {}{}", words(now.phase.as_str()), rate_of(&now)));
        let printed = if output.is_json() {
            output.json_line(&ProgressLine { name, progress: now })
        } else if plain && said.is_none_or(|(phase, at)| phase != now.phase || at.elapsed() > LINE_EVERY) {
            said = Some((now.phase, Instant::now()));
            // Progress goes where errors go, so that an answer is never mixed with it. A rebuild does not end because nobody
            // is told how far it is.
            writeln!(io::stderr(), "{}", plain_line(name, &now)).ok();
            Ok(())
        } else {
            Ok(())
        };
        if let Err(error) = printed {
            return error;
        }
    }
    std::future::pending().await
}

fn plain_line(name: &str, now: &Progress) -> String {
    format!(
        "{name}: {} generation {}, position {} of {}{}",
        words(now.phase.as_str()),
        now.generation,
        now.position,
        now.target,
        rate_of(now)
    )
}

/// While the journal is read from its beginning: how fast, and how long still. In each later phase the clock of the reading stands
/// while the events go on, and proving, waiting and switching read none.
fn rate_of(now: &Progress) -> String {
    let left = match now.phase {
        Phase::Loading if now.position < now.target => now.seconds_left,
        Phase::Loading
        | Phase::Queued
        | Phase::Indexing
        | Phase::CatchingUp
        | Phase::Proving
        | Phase::Waiting
        | Phase::Switching
        | Phase::Succeeded
        | Phase::Failed => None,
    };
    rate(now.events_per_second, left)
}

fn rate(events_per_second: u64, seconds_left: Option<u64>) -> String {
    seconds_left.map(|left| format!(", {events_per_second} events/s, {left} s left")).unwrap_or_default()
}

/// The last line of a rebuild or verification, for programs.
#[derive(Serialize)]
struct Answer<'a> {
    name: &'a str,
    outcome: &'a str,
    #[serde(flatten)]
    rebuilt: Option<&'a Rebuilt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<&'a Proof>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn rebuilt(
    name: &str,
    version: u32,
    purpose: Purpose,
    rebuilt: &Rebuilt,
    kept_halted: bool,
    output: Output,
) -> Result<(), OutputError> {
    if output.is_json() {
        let outcome = match purpose {
            Purpose::Switch => "switched",
            Purpose::Verify => "verified",
        };
        return output.json_line(&Answer { name, outcome, rebuilt: Some(rebuilt), proof: None, error: None });
    }
    let (generation, position) = (rebuilt.generation, rebuilt.position);
    match purpose {
        Purpose::Switch => {
            output.line(format_args!(
                "{name}: generation {generation} (version {version}) is live, at position {position}."
            ))?;
        }
        Purpose::Verify => {
            output.line(format_args!("{name}: built anew up to position {position} and dropped again."))?
        }
    }
    match &rebuilt.proof {
        Some(proof) => self::proof(proof, output)?,
        None => {
            output.line("  Nothing to compare it with: the tables that were live are gone, or of another history.")?
        }
    }
    if purpose == Purpose::Switch {
        if kept_halted {
            output.line(format_args!(
                "  The generation before is kept, and has halted, so that nobody can go back to it: `fanledger projections retire \
                 {name}` drops it."
            ))?;
        } else {
            output.line(format_args!(
                "  The generation before is kept: `fanledger projections rollback {name}` goes back to it, `retire {name}` drops it."
            ))?;
        }
    }
    match &rebuilt.halt {
        Some(halt) => output.line(format_args!("  It halted since: {halt}")),
        None => Ok(()),
    }
}

/// A difference, and that nothing was switched.
pub(super) fn refused(name: &str, error: &RebuildError, output: Output) -> Result<(), OutputError> {
    if output.is_json() {
        let outcome = if matches!(error, RebuildError::Unconfirmed { .. }) { "unconfirmed" } else { "differs" };
        let error_text = Some(error.to_string());
        return output.json_line(&Answer { name, outcome, rebuilt: None, proof: error.proof(), error: error_text });
    }
    if let Some(proof) = error.proof() {
        self::proof(proof, output)?;
    }
    output.line(describe(error).trim_end())
}

fn proof(proof: &Proof, output: Output) -> Result<(), OutputError> {
    if proof.is_equal() {
        return output.line(format_args!(
            "  Equal to generation {} at position {}: {} rows in {} tables.",
            proof.live_generation,
            proof.position,
            proof.equal_rows(),
            proof.tables.len()
        ));
    }
    output.line(format_args!(
        "  Generation {} (version {}) beside generation {} (version {}), which is live, at position {}:",
        proof.new_generation, proof.new_version, proof.live_generation, proof.live_version, proof.position
    ))?;
    proof.tables.iter().try_for_each(|table| difference(table, output))
}

fn difference(table: &TableProof, output: Output) -> Result<(), OutputError> {
    let name = &table.table;
    match table.presence {
        Presence::OnlyLive => return output.line(format_args!("    {name}: only the live one has this table")),
        Presence::OnlyNew => return output.line(format_args!("    {name}: only the new one has this table")),
        Presence::Both => {}
    }
    let mut parts = vec![format!("{} rows equal", table.equal)];
    for (count, what) in [(table.changed, "changed"), (table.only_live, "only live"), (table.only_new, "only new")] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    for (columns, what) in [(&table.columns_added, "new"), (&table.columns_removed, "gone")] {
        if !columns.is_empty() {
            parts.push(format!("columns {what}: {}", columns.join(", ")));
        }
    }
    output.line(format_args!("    {name}: {}", parts.join(", ")))?;
    for key in &table.keys {
        let what = match key.difference {
            Difference::Changed => "changed",
            Difference::OnlyLive => "only live",
            Difference::OnlyNew => "only new",
        };
        output.line(format_args!("      {what:<9} {}", key.key))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_only_of_the_reading() {
        let now = |phase| Progress {
            phase,
            position: Position::new(10),
            target: Position::new(20),
            events_per_second: 504_000,
            seconds_left: Some(0),
            ..Progress::default()
        };
        assert_eq!(rate_of(&now(Phase::Loading)), ", 504000 events/s, 0 s left");
        for phase in [Phase::Indexing, Phase::CatchingUp, Phase::Proving, Phase::Waiting, Phase::Switching] {
            assert_eq!(rate_of(&now(phase)), "", "{phase:?}");
        }
    }
}
