//! What this crate measures. Names are permanent: dashboards and alerts are built on them.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};

/// Tells the process's recorder what each metric of this crate means, and begins its counters at zero, so that the first
/// increment is seen as one. Once, right after the recorder is installed.
pub fn describe() {
    describe_writer();
    describe_relay_and_feed();
    describe_runners();
}

fn describe_writer() {
    describe_histogram!(
        "fanledger_journal_append_seconds",
        Unit::Seconds,
        "From handing a command to the writer to its answer, whatever that is; includes waiting for the batch before"
    );
    describe_histogram!(
        "fanledger_journal_batch_commands",
        Unit::Count,
        "Commands that went together in one call of `journal.append`"
    );
    describe_counter!(
        "fanledger_journal_commands_total",
        Unit::Count,
        "Commands that the journal judged, by `outcome`: `appended`, `duplicate`, `conflict`, `misuse`"
    );
    describe_counter!("fanledger_journal_events_total", Unit::Count, "Events that this process appended");
    describe_counter!(
        "fanledger_journal_append_failures_total",
        Unit::Count,
        "Commands that got an error instead of an outcome, by `reason`: `unavailable` and `not_durable` may succeed if sent \
         again, `clock` and `setup` want an operator, `refused` is the command's own fault"
    );
    describe_counter!(
        "fanledger_journal_connect_failures_total",
        Unit::Count,
        "Times that the writer could not connect to Postgres"
    );
    for outcome in ["appended", "duplicate", "conflict", "misuse"] {
        counter!("fanledger_journal_commands_total", "outcome" => outcome).increment(0);
    }
    for reason in ["unavailable", "not_durable", "clock", "setup", "refused"] {
        counter!("fanledger_journal_append_failures_total", "reason" => reason).increment(0);
    }
    counter!("fanledger_journal_events_total").increment(0);
    counter!("fanledger_journal_connect_failures_total").increment(0);
}

fn describe_relay_and_feed() {
    describe_gauge!("fanledger_relay_active", "1 where this process's relay holds the lock, 0 where it stands by");
    describe_gauge!("fanledger_relay_connected", "1 while this process's relay publishes to NATS");
    describe_gauge!(
        "fanledger_relay_position",
        "The last position that NATS has acknowledged to this process's relay; 0 where it stands by"
    );
    describe_counter!(
        "fanledger_relay_refills_total",
        Unit::Count,
        "Times that the stream was absent or held another history and was filled anew"
    );
    describe_counter!("fanledger_relay_published_total", Unit::Count, "Events that NATS has acknowledged");
    describe_gauge!(
        "fanledger_feed_connected",
        "1 while this process hears from NATS; its runners read Postgres meanwhile"
    );
    describe_counter!("fanledger_feed_messages_total", Unit::Count, "Messages that came from NATS");
    for name in ["fanledger_relay_refills_total", "fanledger_relay_published_total", "fanledger_feed_messages_total"] {
        counter!(name).increment(0);
    }
}

fn describe_runners() {
    describe_histogram!(
        "fanledger_projection_delay_seconds",
        Unit::Seconds,
        "From an event's append to the commit of what the live generation made of it, for the last event of each batch, by \
         `projection`"
    );
    describe_histogram!(
        "fanledger_projection_apply_seconds",
        Unit::Seconds,
        "Time to apply and commit one batch, by `projection`; process managers wait for their commands in it"
    );
    describe_histogram!(
        "fanledger_projection_batch_events",
        Unit::Count,
        "Events of one batch that the projection wanted, by `projection`"
    );
    describe_counter!(
        "fanledger_projection_retries_total",
        Unit::Count,
        "Times that a runner failed for a reason that passes and began again, by `projection`"
    );
    describe_counter!(
        "fanledger_projection_halts_total",
        Unit::Count,
        "Times that a runner of this process halted at an event that it cannot apply, by `projection`"
    );
}

/// Begins one runner's counters at zero.
pub(crate) fn begin_runner(projection: &'static str) {
    counter!("fanledger_projection_retries_total", "projection" => projection).increment(0);
    counter!("fanledger_projection_halts_total", "projection" => projection).increment(0);
}
