//! The simulator finds what is planted, repeats itself, and finds nothing where nothing is planted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use fanledger_simulator::{Bug, Options, Report, run};

const STEPS: u64 = 1500;

/// As many seeds as are tried for a bug before it counts as not found.
const FOUND_WITHIN: u64 = 200;

fn options(plant: Option<Bug>) -> Options {
    Options { steps: STEPS, plant }
}

fn show(report: &Report) -> String {
    report.failure.as_ref().map_or_else(String::new, |failure| {
        format!(
            "seed {} failed after step {}: {}\n{}\nrun it again: fanledger simulate --seed {} --steps {STEPS}",
            report.seed,
            failure.step,
            failure.what,
            failure.last.join("\n"),
            report.seed,
        )
    })
}

/// Plays seeds on both of two threads, and gives back the reports, by seed.
fn play(seeds: Range<u64>) -> Vec<Report> {
    let next = AtomicU64::new(seeds.start);
    let mut reports: Vec<Report> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reports = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end {
                            return reports;
                        }
                        reports.push(run(seed, &options(None)));
                    }
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    reports.sort_by_key(|report| report.seed);
    reports
}

/// `make simulate` plays ten thousand; this is the short form.
#[test]
fn nothing_is_found_where_nothing_is_planted() {
    let reports = play(0..200);
    for report in &reports {
        assert!(report.failure.is_none(), "{}", show(report));
    }
    // A run in which nothing went wrong would pass as easily.
    let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    assert!(sum(|report| report.counts.webhooks) > 4_000);
    assert!(sum(|report| report.counts.crashes) > 1_000);
    assert!(sum(|report| report.counts.outages) > 1_000);
    assert!(sum(|report| report.counts.restores) > 50);
    assert!(sum(|report| report.counts.refills) > 200);
    assert!(sum(|report| report.counts.rebuilds) > 200);
    assert!(sum(|report| report.counts.closes) > 50);
    assert!(sum(|report| report.counts.payout_runs) > 150);
    assert!(sum(|report| report.counts.transfers) > 200);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        assert_eq!(run(seed, &options(None)), run(seed, &options(None)));
    }
    assert_ne!(run(1, &options(None)).trace, run(2, &options(None)).trace);
}

fn found(bug: Bug) -> Report {
    let report = (0..FOUND_WITHIN).map(|seed| run(seed, &options(Some(bug)))).find(|report| report.failure.is_some());
    let report = report.unwrap_or_else(|| panic!("{bug} was not found within {FOUND_WITHIN} seeds"));
    println!("{bug}: {}", show(&report));
    // What is told of a failure repeats it.
    assert_eq!(run(report.seed, &options(Some(bug))), report);
    report
}

#[test]
fn a_webhook_acknowledged_before_it_is_appended_is_found() {
    assert!(found(Bug::AcknowledgedFirst).failure.unwrap().what.contains("was acknowledged at position"));
}

#[test]
fn a_checkpoint_committed_apart_from_its_rows_is_found() {
    assert!(
        found(Bug::CheckpointApart).failure.unwrap().what.contains("is not what the journal up to there adds up to")
    );
}

#[test]
fn a_runner_that_takes_gaps_is_found() {
    assert!(found(Bug::GapsTaken).failure.unwrap().what.contains("is not what the journal up to there adds up to"));
}

#[test]
fn a_posting_that_takes_no_notice_of_a_close_is_found() {
    let what = found(Bug::GuardsIgnored).failure.unwrap().what;
    assert!(what.contains("the book was closed"), "{what}");
}

#[test]
fn a_relay_without_expected_sequence_is_found() {
    assert!(found(Bug::NoExpectedSequence).failure.unwrap().what.contains("the stream holds position"));
}

#[test]
fn a_translator_that_posts_the_whole_after_a_crash_is_found() {
    found(Bug::WholePosted);
}

#[test]
fn a_manager_that_does_not_know_how_far_it_had_sent_loses_it_with_a_restored_journal() {
    let what = found(Bug::HeadForgotten).failure.unwrap().what;
    assert!(what.contains("come to other balances") || what.contains("do not tie out"), "{what}");
}

#[test]
fn small_runs_that_one_person_pays_out_alone_add_up() {
    let what = found(Bug::AloneForgotten).failure.unwrap().what;
    assert!(what.contains("paid out alone"), "{what}");
}

#[test]
fn a_sender_whose_look_up_finds_nothing_pays_twice_after_a_day() {
    let what = found(Bug::GroupNotAsked).failure.unwrap().what;
    assert!(what.contains("two transfers were made under") || what.contains("stands at Stripe for it"), "{what}");
}

#[test]
fn a_sender_without_idempotency_keys_pays_twice_after_a_crash() {
    let what = found(Bug::KeyForgotten).failure.unwrap().what;
    assert!(what.contains("two transfers were made under"), "{what}");
}
