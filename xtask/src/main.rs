//! `cargo xtask <task>`.

use std::error::Error as _;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <task>
  test [--show] [arguments]   start a private Postgres, run the tests, stop it; without arguments the whole
                              workspace's; --show lets the tests print
  gen-contracts [--check]     write docs/events, or only say what differs
  audit                       licences, bans, sources and advisories of the dependencies
  web                         build the web app into web-yew/dist, fetching a compiler and tools if need be
  bookkeepers                 fetch hledger, beancount and pyarrow, which check exports in the tests
  browser [arguments]         walk the web app's journeys in a real Chromium; arguments go to Node's test runner
  reset-db                    remove the data of the private Postgres and NATS";

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).without_time().init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = arguments.split_first().map_or(("", &[][..]), |(task, rest)| (task.as_str(), rest));
    let done = match (task, rest) {
        ("test", rest) => xtask::tests::run(rest).await,
        ("gen-contracts", []) => xtask::contracts::write(),
        ("gen-contracts", [flag]) if flag == "--check" => xtask::contracts::check(),
        ("audit", []) => xtask::audit::run().await,
        ("web", []) => xtask::web::run().await,
        ("browser", rest) => xtask::browser::run(rest).await,
        ("bookkeepers", []) => xtask::bookkeepers::run().await,
        ("reset-db", []) => xtask::reset::run().await,
        _ => Err(xtask::Error::Usage(USAGE.to_owned())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(source) = cause {
                eprintln!("  because: {source}");
                cause = source.source();
            }
            ExitCode::from(error.exit_code())
        }
    }
}
