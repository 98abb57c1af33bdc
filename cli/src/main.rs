//! The binary. Everything is in the library beside it, so that the tests can reach it.

use std::process::ExitCode;

/// Most of what a webhook costs outside Postgres is small allocations on many threads; glibc's takes three times as long.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fanledger_cli::main()
}
