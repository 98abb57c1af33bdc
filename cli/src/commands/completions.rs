//! `fanledger completions <shell>`.

use clap::Args;
use clap_complete::Shell;

use crate::failure::{Failure, Outcome};
use crate::output::Output;

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fanledger completions bash > ~/.local/share/bash-completion/completions/fanledger")]
pub struct CompletionsArgs {
    /// Which shell.
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When standard output is closed.
pub fn run(args: &CompletionsArgs, command: &mut clap::Command, output: Output) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "fanledger", &mut script);
    output.raw(&script)?;
    Ok(Outcome::Fine)
}
