//! P10: all roles in one process with nothing to do: from its start until it is ready, and what it holds of memory.

use crate::bench::Rounds;
use crate::bench::ground::Ground;
use crate::bench::report::{Figure, Raw, Report};
use crate::failure::Failure;
use crate::output::Output;

const READY: &str = "start to ready";
const RESIDENT: &str = "resident";

pub(super) async fn run(args: Rounds, ground: &Ground, output: Output) -> Result<Report, Failure> {
    let bar = output.bar(u64::from(args.rounds), "measuring");
    let mut rounds = Vec::new();
    // Round 0 creates the projections' tables, which is not a start like any other, and is not kept.
    for round in 0..=args.rounds {
        let served = ground.start_all().await?;
        tokio::time::sleep(args.duration()).await;
        let resident = served.resident_kib()? as f64 * 1024.0 / 1e6;
        if round > 0 {
            let ready = served.ready_after.as_secs_f64();
            rounds.push(Raw { round, what: READY.into(), value: ready, unit: "s" });
            rounds.push(Raw { round, what: RESIDENT.into(), value: resident, unit: "MB" });
            bar.inc(1);
        }
        served.stop().await;
    }
    bar.finish_and_clear();
    let of = |what: &str| Report::median_of(&rounds, what);
    let figures = vec![
        Figure::alone("P10", "from start to ready".into(), of(READY), "s", "≤ 2"),
        Figure::alone("P10", format!("resident, idle for {} s", args.seconds), of(RESIDENT), "MB", "≤ 80"),
    ];
    let notes =
        vec!["Gateway, relay, projections and process managers in one process, over an empty journal.".to_owned()];
    Ok(Report { bench: "idle", machine: ground.machine.clone(), notes, rounds, figures })
}
