//! What goes wrong, and what an operator does about it.

use fanledger_commands::stripe::{fetcher, translator};
use fanledger_journal::event::Position;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use crate::postgres::Backup;
use crate::runner::RUNNERS;
use crate::scheduler::Simulation;
use crate::world::{Due, MILLISECOND, Micros, Role, SECOND, World};

/// In so many of a thousand steps something goes wrong.
const PER_THOUSAND: u32 = 18;
/// How long a server or a process stays away.
const AWAY: std::ops::Range<Micros> = 5 * MILLISECOND..250 * MILLISECOND;
/// Restores of one run.
const RESTORES_MAX: u64 = 2;
/// A journal with fewer events is not worth a restore.
const RESTORED_MIN: u64 = 12;
/// Steps from one backup to the next, about.
const BACKED_UP_EVERY: u32 = 120;
const MANAGERS: [&str; 2] = [translator::NAME, fetcher::NAME];

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
            (world.random.random_range(0..1000) < PER_THOUSAND, world.random.random_range(0..100))
        };
        if !happens {
            return;
        }
        match what {
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
                world.skew = world.random.random_range(-3 * SECOND..3 * SECOND);
                world.happened("postgres", 0, "the clock is set", 0);
            }
        }
    }

    /// What an operator does without being asked: rebuild what halted.
    pub(crate) fn operate(&mut self) {
        let halted: Vec<&'static str> = {
            let mut world = self.world();
            RUNNERS.into_iter().filter(|name| world.postgres.runner(name).halted.is_some()).collect()
        };
        for runner in halted {
            self.start_rebuild(runner);
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
        if position < RESTORED_MIN || self.counts.restores == RESTORES_MAX {
            return;
        }
        let Some(Backup { head, runners }) = self.postgres.backups.choose(&mut self.random).cloned() else {
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
