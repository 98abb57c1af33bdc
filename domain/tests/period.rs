//! Which month can be closed, which opened again, and by whom.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use fanledger_domain::event::Event;
use fanledger_domain::period::{FirstOpen, Month, Period, PeriodClosed, PeriodCommand, PeriodError, PeriodReopened};
use fanledger_domain::reason::REASON_CHARS_MAX;
use fanledger_domain::time::Timestamp;
use proptest::prelude::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

fn close(period: &str, by: &str) -> PeriodCommand {
    PeriodCommand::Close { period: month(period), by: by.parse().unwrap() }
}

fn reopen(period: &str, by: &str) -> PeriodCommand {
    PeriodCommand::Reopen {
        period: month(period),
        by: by.parse().unwrap(),
        reason: "an invoice was missing".to_owned(),
    }
}

const NOW: &str = "2026-11-03T09:00:00Z";

/// A period to which this was done, each with success.
fn given(commands: &[PeriodCommand]) -> Period {
    let mut period = Period::default();
    for command in commands {
        let event = period.decide(command.clone(), at(NOW)).unwrap();
        period.evolve(&event);
    }
    period
}

fn refused(period: &Period, command: PeriodCommand) -> PeriodError {
    period.decide(command, at(NOW)).unwrap_err()
}

#[test]
fn a_month_is_closed_up_to_the_start_of_the_next() {
    let closed = given(&[]).decide(close("2026-10", "ada"), at(NOW)).unwrap();
    let expected = PeriodClosed {
        period: month("2026-10"),
        first_open: at("2026-11-01T00:00:00Z"),
        at: at(NOW),
        by: "ada".parse().unwrap(),
    };
    assert_eq!(closed, Event::from(expected));
    let period = given(&[close("2026-10", "ada")]);
    assert_eq!(period.first_open(), FirstOpen::at(at("2026-11-01T00:00:00Z")));
    assert_eq!(period.sequence(), 1);
}

#[test]
fn a_month_that_has_not_ended_stays_open_to_its_last_microsecond() {
    let end = at("2026-11-01T00:00:00Z");
    let before = Timestamp::from_unix_micros(end.as_unix_micros() - 1).unwrap();
    let none = Period::default();
    assert_eq!(
        none.decide(close("2026-10", "ada"), before),
        Err(PeriodError::NotEnded { period: month("2026-10"), end })
    );
    assert!(none.decide(close("2026-10", "ada"), end).is_ok());
}

#[test]
fn months_are_closed_one_after_the_other() {
    let period = given(&[close("2025-12", "ada")]);
    let next = month("2026-01");
    for early in ["2025-12", "2025-11", "1999-01"] {
        let period_of = month(early);
        let refused = refused(&period, close(early, "ada"));
        assert_eq!(refused, PeriodError::ClosedAlready { period: period_of, next });
    }
    assert_eq!(
        refused(&period, close("2026-02", "ada")),
        PeriodError::NotNext { period: month("2026-02"), next },
        "over the turn of a year, too"
    );
    assert_eq!(given(&[close("2025-12", "ada"), close("2026-01", "ada")]).sequence(), 2);
}

#[test]
fn the_last_closed_month_is_reopened_by_somebody_else_and_closed_again() {
    let period = given(&[close("2026-09", "ada"), close("2026-10", "bel")]);
    let reopened = period.decide(reopen("2026-10", "ada"), at(NOW)).unwrap();
    let expected = PeriodReopened {
        period: month("2026-10"),
        first_open: Some(at("2026-10-01T00:00:00Z")),
        at: at(NOW),
        by: "ada".parse().unwrap(),
        reason: "an invoice was missing".to_owned(),
    };
    assert_eq!(reopened, Event::from(expected));
    // Months are reopened from the last one backwards, each by another than its own closer.
    let opened = given(&[close("2026-09", "ada"), close("2026-10", "bel"), reopen("2026-10", "ada")]);
    assert_eq!(opened.first_open(), FirstOpen::at(at("2026-10-01T00:00:00Z")));
    assert!(opened.decide(reopen("2026-09", "bel"), at(NOW)).is_ok());
    let closed =
        given(&[close("2026-09", "ada"), close("2026-10", "bel"), reopen("2026-10", "ada"), close("2026-10", "cy")]);
    assert_eq!(closed.first_open(), FirstOpen::at(at("2026-11-01T00:00:00Z")));
    assert!(closed.decide(reopen("2026-10", "bel"), at(NOW)).is_ok(), "who counts is who closed it last");
}

#[test]
fn with_the_first_closed_month_everything_is_open_again() {
    // A slip of the pen closes two millennia; taken back, any month can be the first.
    let period = given(&[close("0026-10", "ada"), reopen("0026-10", "bel")]);
    assert_eq!((period.first_open(), period.sequence()), (FirstOpen::default(), 2));
    let closed = period.decide(close("2026-10", "ada"), at(NOW)).unwrap();
    let Event::PeriodClosed(closed) = closed else { panic!("{closed:?}") };
    assert_eq!(closed.first_open, at("2026-11-01T00:00:00Z"));
}

#[test]
fn a_reopening_that_is_not_one_is_refused() {
    let period = given(&[close("2026-09", "ada"), close("2026-10", "bel")]);
    assert_eq!(
        refused(&period, reopen("2026-10", "bel")),
        PeriodError::SamePerson { period: month("2026-10"), by: "bel".parse().unwrap() }
    );
    // In capitals it is the same person, as sign-in services have it.
    assert!(matches!(refused(&period, reopen("2026-10", "Bel")), PeriodError::SamePerson { .. }));
    assert!("bel@example.com".parse::<fanledger_domain::id::Subject>().is_err(), "a person's address is kept for good");
    for other in ["2026-09", "2026-11", "2020-01"] {
        let last = Some(month("2026-10"));
        let refused = refused(&period, reopen(other, "ada"));
        assert_eq!(refused, PeriodError::NotLast { period: month(other), last });
    }
    let nothing = PeriodError::NotLast { period: month("2026-10"), last: None };
    assert_eq!(refused(&Period::default(), reopen("2026-10", "ada")), nothing);
    for reason in [String::new(), " \n".to_owned(), "two\nlines".to_owned(), "x".repeat(REASON_CHARS_MAX + 1)] {
        let command = PeriodCommand::Reopen { period: month("2026-10"), by: "ada".parse().unwrap(), reason };
        assert_eq!(refused(&period, command), PeriodError::Reason);
    }
}

#[test]
fn a_month_has_one_writing() {
    assert_eq!(month("2026-10").to_string(), "2026-10");
    for bad in [
        "",
        "2026",
        "2026-1",
        "2026-13",
        "2026-00",
        "2026/10",
        "+026-10",
        "-026-10",
        " 026-10",
        "2026-10-01",
        "2026-1a",
    ] {
        assert!(bad.parse::<Month>().is_err(), "{bad}");
    }
    assert_eq!(Month::of(at("2026-10-31T23:59:59.999999Z")), month("2026-10"));
    assert_eq!(Month::of(at("2026-11-01T00:00:00Z")), month("2026-11"));
}

#[test]
fn what_occurred_in_a_closed_month_counts_at_the_first_open_instant() {
    let first_open = FirstOpen::at(at("2026-11-01T00:00:00Z"));
    assert_eq!(first_open.effective(at("2026-10-31T23:59:59Z")), at("2026-11-01T00:00:00Z"));
    assert_eq!(first_open.effective(at("2026-11-01T00:00:00Z")), at("2026-11-01T00:00:00Z"));
    assert_eq!(first_open.effective(at("2026-11-02T00:00:00Z")), at("2026-11-02T00:00:00Z"));
    assert_eq!(FirstOpen::default().effective(at("1970-01-01T00:00:00Z")), at("1970-01-01T00:00:00Z"));
}

fn any_command() -> impl Strategy<Value = PeriodCommand> {
    (0_u32..24, any::<bool>(), prop::sample::select(vec!["ada", "bel"])).prop_map(|(months, closes, by)| {
        let period = format!("{}-{:02}", 2025 + months / 12, 1 + months % 12);
        if closes { close(&period, by) } else { reopen(&period, by) }
    })
}

proptest! {
    /// Whatever is asked: what is open begins with a month that is not closed, and a replay comes to the same.
    #[test]
    fn what_is_open_begins_where_the_last_closed_month_ends(commands in prop::collection::vec(any_command(), 0..60)) {
        let mut period = Period::default();
        let mut stream = Vec::new();
        let mut closed: Vec<Month> = Vec::new();
        for command in commands {
            let Ok(event) = period.decide(command, at(NOW)) else { continue };
            period.evolve(&event);
            if let Event::PeriodClosed(event) = &event {
                if let Some(last) = closed.last() {
                    prop_assert_eq!(last.next().unwrap(), event.period);
                }
                closed.push(event.period);
            } else if let Event::PeriodReopened(event) = &event {
                prop_assert_eq!(closed.pop(), Some(event.period));
            }
            let ends = closed.last().map(|last| last.end().unwrap());
            prop_assert_eq!(period.first_open().instant(), ends);
            stream.push(event);
        }
        let mut replayed = Period::default();
        stream.iter().for_each(|event| replayed.evolve(event));
        prop_assert_eq!(replayed, period);
    }
}
