//! What goes wrong, and what an operator does about it.

use fanledger_commands::payouts::sender;
use fanledger_journal::checkpoint::HaltKind;
use fanledger_journal::event::Position;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use crate::postgres::Backup;
use crate::scheduler::Simulation;
use crate::worker::{MANAGERS, RUNNERS};
use crate::world::{Due, MILLISECOND, Micros, Role, World};

/// In so many of a thousand steps something goes wrong.
const PER_THOUSAND: u32 = 18;
/// And while creators are paid, which takes many steps one after the other.
const PAYING_PER_THOUSAND: u32 = 14;
/// How long a server or a process stays away.
const AWAY: std::ops::Range<Micros> = 5 * MILLISECOND..250 * MILLISECOND;
/// Restores of one run while webhooks come, and more while creators are paid.
const RESTORES_MAX: u64 = 2;
const PAYING_RESTORES_MAX: u64 = 4;
/// Which backups are restored while creators are paid: the newest ones, or the runs that were sent are all lost.
const NEWEST: usize = 4;
/// A journal with fewer events is not worth a restore.
const RESTORED_MIN: u64 = 12;
/// Steps from one backup to the next, about.
const BACKED_UP_EVERY: u32 = 120;
/// By how much the clock of Postgres is wrong at most.
const SKEW: Micros = 30 * MILLISECOND;

impl Simulation {
    /// Now and then, between two steps.
    pub(crate) fn disturb(&mut self) {
        let (happens, what) = {
            let mut world = self.world();
            if world.random.random_range(0..BACKED_UP_EVERY) == 0 {
                let head = world.journal.position().get();
                world.postgres.back_up(head);
                world.happened("operator", 0, "takes a backup at", head);
            }
            let often = if world.is_paying { PAYING_PER_THOUSAND } else { PER_THOUSAND };
            (world.random.random_range(0..1000) < often, world.random.random_range(0..100))
        };
        if !happens {
            return;
        }
        let is_paying = self.world().is_paying;
        match what {
            // Of what was sent, the more may be lost.
            70..78 if is_paying => self.world().restore(),
            0..34 => self.crash_one(),
            34..42 => self.start_another(),
            42..50 => self.world().nats_away("NATS is killed", |_| {}),
            50..55 => self.world().nats_away("NATS loses its data", |world| world.nats.wipe()),
            55..62 => self.world().nats_away("NATS loses its last messages", |world| {
                let messages = world.random.random_range(1..=6);
                world.nats.truncate(messages);
            }),
            62..70 => self.world().power_cut(),
            70..78 => self.world().cut_one(),
            78..81 => self.world().restore(),
            81..87 => {
                let runner = RUNNERS.choose(&mut self.world().random).copied();
                runner.into_iter().for_each(|runner| self.start_rebuild(runner));
            }
            87..91 => self.start_sync(),
            91..95 => self.start_close(),
            _ => {
                let mut world = self.world();
                world.skew = world.random.random_range(-SKEW..SKEW);
                world.happened("postgres", 0, "the clock is set", 0);
            }
        }
    }

    /// What an operator does without being asked: rebuild what halted, and stop the run that the sender halted on.
    pub(crate) fn operate(&mut self) {
        let (halted, is_mismatched): (Vec<(&'static str, HaltKind)>, bool) = {
            let mut world = self.world();
            let halted =
                RUNNERS.into_iter().filter_map(|name| Some((name, world.postgres.runner(name).halted?))).collect();
            (halted, !world.mismatched.is_empty())
        };
        // docs/runbooks/payouts.md: stop the run, and only then let the sender go on.
        let is_sender_halted = halted.contains(&(sender::NAME, HaltKind::Poison));
        if is_mismatched || is_sender_halted {
            self.start_stops();
        }
        for (runner, kind) in halted {
            if (runner, kind) != (sender::NAME, HaltKind::Poison) {
                self.start_rebuild(runner);
            }
        }
    }

    fn crash_one(&mut self) {
        let running = self.running();
        let chosen = running.choose(&mut self.world().random).copied();
        if let Some(process) = chosen {
            let role = self.crash(process);
            let mut world = self.world();
            world.counts.crashes += 1;
            world.happened(role.as_str(), process, "is killed", 0);
            if role != Role::Operator {
                let after = world.random.random_range(AWAY);
                world.plan(after, Due::Start(role));
            }
        }
    }

    /// As in a rolling deployment: two of a kind.
    fn start_another(&mut self) {
        let role = Role::SERVICES.choose(&mut self.world().random).copied();
        if let Some(role) = role
            && self.count(role) < 2
        {
            self.start(role);
        }
    }
}

impl World {
    fn nats_away(&mut self, what: &'static str, lose: impl FnOnce(&mut Self)) {
        self.nats.go_down();
        lose(self);
        self.counts.outages += 1;
        let after = self.random.random_range(AWAY);
        self.plan(after, Due::NatsUp);
        self.happened("nats", 0, what, 0);
    }

    /// Postgres goes down with all its sessions, and with what was committed without waiting for the disk.
    fn power_cut(&mut self) {
        self.postgres.lose_unflushed();
        self.postgres_away("loses power");
        self.counts.outages += 1;
    }

    fn postgres_away(&mut self, what: &'static str) {
        self.postgres.go_down();
        self.queues.values_mut().for_each(crate::writer::Queue::break_connection);
        let after = self.random.random_range(AWAY);
        self.plan(after, Due::PostgresUp);
        self.happened("postgres", 0, what, 0);
    }

    /// One session ends, and whoever had it does not know.
    fn cut_one(&mut self) {
        let open: Vec<u64> = self.postgres.connections.keys().copied().collect();
        if let Some(connection) = open.choose(&mut self.random) {
            self.postgres.disconnect(*connection);
            self.counts.outages += 1;
            self.happened("postgres", 0, "cuts connection", *connection);
        }
    }

    /// The journal goes back to an earlier time, alone or with what is in the same database. What Stripe heard acknowledged and the
    /// journal lost, somebody asks Stripe to send again.
    fn restore(&mut self) {
        let position = self.journal.position().get();
        let at_most = if self.is_paying { PAYING_RESTORES_MAX } else { RESTORES_MAX };
        if position < RESTORED_MIN || self.counts.restores >= at_most {
            return;
        }
        let oldest = if self.is_paying { self.postgres.backups.len().saturating_sub(NEWEST) } else { 0 };
        let Some(Backup { head, runners }) = self.postgres.backups[oldest..].choose(&mut self.random).cloned() else {
            return;
        };
        // What came back with the journal: everything; the managers, where what people read lives elsewhere; or nothing else.
        let back: fn(&str) -> bool = match self.random.random_range(0..3) {
            0 => |_| true,
            1 => |name| MANAGERS.contains(&name),
            _ => |_| false,
        };
        self.postgres.runners.extend(runners.into_iter().filter(|(name, _)| back(name)));
        self.counts.restores += 1;
        self.journal.restore(Position::new(head));
        self.postgres.backups.retain(|backup| backup.head <= head);
        self.postgres.flush();
        self.nats.is_dirty = true;
        self.postgres_away("is restored to an earlier backup");
        let lost = self.stripe.forget_after(Position::new(head));
        for number in lost {
            self.plan_retry(number);
        }
    }
}
