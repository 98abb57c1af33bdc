//! What must hold of payouts once everything has come to rest. That no two transfers are made under one name, and that nobody is sent
//! anything who was held by then, is looked at when Stripe is asked (`transfers`).

use std::collections::BTreeMap;

use fanledger_domain::account::{Account, Bucket};
use fanledger_domain::event::Event;
use fanledger_domain::money::Currency;
use fanledger_domain::payout_run::proposal::totals;
use fanledger_domain::payout_run::run::{PayoutRun, Stage};
use fanledger_domain::payout_run::{PayoutLine, PayoutRunId, PayoutRunProposed};
use fanledger_domain::policy;
use fanledger_domain::time::Timestamp;
use fanledger_journal::event::StreamId;

use crate::world::World;

/// A line of the journal's runs, and what became of it.
struct Told<'a> {
    line: &'a PayoutLine,
    sent: Option<&'a str>,
    sent_at: Option<Timestamp>,
    failed: Option<&'a str>,
}

type Lines<'a> = BTreeMap<(PayoutRunId, u32), Told<'a>>;

/// The first rule that is broken.
pub(crate) fn fault(world: &World) -> Option<String> {
    let mut lines: Lines<'_> = BTreeMap::new();
    let mut runs: BTreeMap<PayoutRunId, PayoutRun> = BTreeMap::new();
    for recorded in world.journal.events() {
        let event = &recorded.event;
        if recorded.row.stream.aggregate_type == PayoutRun::STREAM
            && let Ok(run) = recorded.row.stream.aggregate_id.parse::<PayoutRunId>()
        {
            runs.entry(run).or_default().evolve(event);
        }
        if let Event::PayoutRunProposed(proposed) = event {
            let told = |line| Told { line, sent: None, sent_at: None, failed: None };
            lines.extend(proposed.lines.iter().map(|line| ((proposed.run, line.line), told(line))));
        } else if let Event::PayoutTransferSent(sent) = event {
            let Some(told) = lines.get_mut(&(sent.run, sent.line)) else {
                return Some(format!("line {} of {} was sent, and there is none", sent.line, sent.run));
            };
            told.sent_at = Some(sent.at);
            if told.sent.replace(sent.transfer.as_str()).is_some() || told.failed.is_some() {
                return Some(format!("line {} of {} ended twice", sent.line, sent.run));
            }
        } else if let Event::PayoutTransferFailed(failed) = event {
            let Some(told) = lines.get_mut(&(failed.run, failed.line)) else {
                return Some(format!("line {} of {} failed, and there is none", failed.line, failed.run));
            };
            if told.failed.replace(&failed.code).is_some() || told.sent.is_some() {
                return Some(format!("line {} of {} ended twice", failed.line, failed.run));
            }
        } else if let Event::PayoutRunFinished(finished) = event {
            let of_run = || lines.range((finished.run, 0)..=(finished.run, u32::MAX)).map(|(_, told)| told);
            let sent = of_run().filter(|told| told.sent.is_some()).count();
            let failed = of_run().filter(|told| told.failed.is_some()).count();
            if (sent, failed, of_run().count()) != (finished.sent as usize, finished.failed as usize, sent + failed) {
                return Some(format!("{} finished with other lines than it says", finished.run));
            }
        }
    }
    if let Some(fault) = alone_fault(world, &lines) {
        return Some(fault);
    }
    let open = runs.iter().find(|(_, run)| matches!(run.stage(), Some(Stage::Approved | Stage::Stopped)));
    if let Some((run, _)) = open {
        return Some(format!("{run} was approved and has not finished"));
    }
    lines.iter().find_map(|((run, _), told)| line_fault(world, *run, told)).or_else(|| books_fault(world))
}

/// Of no currency does one person pay out more alone than they may, in as many days as count together. What a history sent that a
/// restore took away is not in the journal, and counts for nothing in it.
fn alone_fault(world: &World, lines: &Lines<'_>) -> Option<String> {
    let mut proposed: BTreeMap<PayoutRunId, &PayoutRunProposed> = BTreeMap::new();
    let mut alone: Vec<&PayoutRunProposed> = Vec::new();
    for recorded in world.journal.events() {
        if let Event::PayoutRunProposed(run) = &recorded.event {
            proposed.insert(run.run, run);
        } else if let Event::PayoutRunApproved(approved) = &recorded.event
            && let Some(run) = proposed.get(&approved.run).filter(|run| run.by.is_same_person(&approved.by))
        {
            let policy = policy::in_force(run.at);
            let since = policy.alone_since(run.at);
            let mut sums: BTreeMap<Currency, i128> = totals(&run.lines);
            for before in alone.iter().filter(|before| before.by.is_same_person(&run.by)) {
                let sent = before.lines.iter().filter(|line| {
                    lines.get(&(before.run, line.line)).is_some_and(|told| told.sent_at.is_some_and(|at| at > since))
                });
                for line in sent {
                    *sums.entry(line.money.currency()).or_default() += i128::from(line.money.minor());
                }
            }
            let above =
                |(currency, minor): (&Currency, &i128)| *minor > i128::from(policy.approval_above(*currency).minor());
            // A currency that this run does not pay is none of its business.
            let paid = totals(&run.lines);
            if sums.iter().any(|sum| paid.contains_key(sum.0) && above(sum)) {
                return Some(format!("{} makes it {sums:?} that {} paid out alone", run.run, run.by));
            }
            alone.push(run);
        }
    }
    None
}

/// What a line says is what Stripe has.
fn line_fault(world: &World, run: PayoutRunId, told: &Told<'_>) -> Option<String> {
    let name = run.line(told.line.line);
    let reference = format!("fanledger-payout-{}-{name}", world.journal.id);
    let there: Vec<_> = world.stripe.transfers.of_group(&reference).collect();
    let Some(sent) = told.sent else {
        // What was asked for in a history that was lost may stand there, whatever this one says.
        let code = told.failed?;
        let own = there.iter().find(|made| made.restores == world.counts.restores)?;
        return Some(format!("{name} failed ({code}), and {} stands at Stripe for it", own.snapshot.id));
    };
    let is_it = there.len() == 1
        && there.iter().all(|made| {
            let transfer = &made.snapshot;
            transfer.id.as_str() == sent
                && (transfer.amount, transfer.currency) == (told.line.money.minor(), told.line.money.currency())
                && transfer.destination.as_ref() == Some(&told.line.destination)
        });
    (!is_it).then(|| format!("{name} was sent as {sent}, and at Stripe stands {there:?}"))
}

/// The books hold every transfer, less what came back, against what its creator could be paid.
fn books_fault(world: &World) -> Option<String> {
    world.stripe.transfers.made.iter().find_map(|made| {
        let transfer = &made.snapshot;
        let stream = StreamId::new("stripe_transfer", transfer.id.as_str());
        let mut debited = 0;
        for recorded in world.journal.stream(&stream) {
            if let Event::EntryPosted(entry) = &recorded.event {
                let of_creators = entry
                    .postings
                    .iter()
                    .filter(|posting| matches!(posting.account, Account::Creator(_, Bucket::Available)));
                debited += of_creators.map(|posting| posting.signed_minor()).sum::<i64>();
            }
        }
        let sent = transfer.amount - transfer.amount_reversed;
        (debited != sent).then(|| format!("{} sent {sent}, and the books hold {debited} of it", transfer.id))
    })
}
