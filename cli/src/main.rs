//! The binary. Everything is in the library beside it, so that the tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanledger_cli::main()
}
