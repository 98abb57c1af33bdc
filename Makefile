# Fanledger's front door. `make help` lists what there is.
# All set-up is done by the targets themselves; what they cannot do, they say.

SHELL := /bin/sh
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
FANLEDGER := $(TARGET_DIR)/debug/fanledger
RELEASE := $(TARGET_DIR)/release/fanledger
# Full counts, and the patience that they need.
FULL := FANLEDGER_FULL_COUNTS=1 NEXTEST_PROFILE=full

.DEFAULT_GOAL := help
.PHONY: help run up down logs fuzz web test check build migrate seed reset-db gen-contracts audit bench conformance properties simulate chaos cargo

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: cargo ## everything on this machine: servers, migrations, demo data, http://127.0.0.1:8080; Ctrl-C stops it
	@cargo build --locked -p fanledger
	@cargo xtask web || echo "the web app is not up to date; everything else goes on, and make web tries again" >&2
	@FANLEDGER=$(FANLEDGER) ./xtask/run.sh

up: cargo ## the same in the background: returns when it is ready, with the addresses; make down stops it
	@cargo build --locked -p fanledger
	@cargo xtask web || echo "the web app is not up to date; everything else goes on, and make web tries again" >&2
	@FANLEDGER=$(FANLEDGER) ./xtask/run.sh up

down: ## stop what make up or make run started, and nothing else
	@test ! -x $(FANLEDGER) || $(FANLEDGER) dev stop

logs: ## follow what the system of make up says; Ctrl-C ends only that
	@tail -n 100 -F "$${FANLEDGER_DATA_DIR:-.fanledger}/dev.log"

test: cargo ## all tests, against a real Postgres and NATS of their own
	@cargo xtask test

check: cargo ## what CI runs: format, clippy, dependency audit, tests
	@.ci/run

web: cargo ## the web app, web-yew/dist; a running `make run` serves the new one at once
	@cargo xtask web

build: cargo ## the release binary, target/release/fanledger, and the web app
	@cargo build --locked --release -p fanledger
	@cargo xtask web || { test $$? -eq 3 && echo "the web app is left out; make web tries again" >&2; }

migrate: cargo ## migrate the database of the running `make run`, or the one that FANLEDGER_DATABASE_URL names
	@cargo run --locked --quiet -p fanledger -- migrate

seed: cargo ## send the demo's webhooks to the running `make run`; what is there already is a duplicate
	@cargo run --locked --quiet -p fanledger -- seed

reset-db: cargo ## remove the data of the private Postgres and NATS; `make run` then starts empty
	@cargo xtask reset-db

gen-contracts: cargo ## write the JSON Schemas of the events to docs/events
	@cargo xtask gen-contracts

audit: cargo ## licences, bans, sources and advisories of the dependencies
	@cargo xtask audit

bench: build ## measure append, webhook, lag, rebuild and verify against their baselines, in the same run; exports; idling
	@$(RELEASE) bench append
	@$(RELEASE) bench webhook
	@$(RELEASE) bench lag
	@$(RELEASE) bench rebuild
	@$(RELEASE) bench verify
	@$(RELEASE) bench export
	@$(RELEASE) bench idle

conformance: cargo ## play STRIPE_FIXTURES=<folder of Stripe events> in many orders; the books end the same
	@test -n "$(STRIPE_FIXTURES)" || { echo "say where the events are: make conformance STRIPE_FIXTURES=<folder>" >&2; exit 2; }
	@STRIPE_FIXTURES="$(abspath $(STRIPE_FIXTURES))" cargo xtask test --show -p fanledger --test conformance

properties: cargo ## the property tests at their full counts (make test runs fewer)
	@$(FULL) PROPTEST_CASES=10000 cargo xtask test --show -p fanledger-domain -p fanledger-journal -p fanledger-commands \
		--lib --test ledgered --test generated --test append --test verify --test faults

# Of each: bodies, envelopes and objects of webhooks, signature headers, checkpoints, proofs, lists to reconcile with.
FUZZ_CASES ?= 100000
fuzz: cargo ## hostile input for everything that reads what strangers send, FUZZ_CASES=100000 of each kind (make test runs 256)
	@PROPTEST_CASES=$(FUZZ_CASES) cargo xtask test -p fanledger-domain -p fanledger --lib --test stripe --test hostile -- \
		hostile_ never_panics decodable_is survives_a_cut any_bytes any_mutation
	@echo "$(FUZZ_CASES) cases of each of these"

simulate: build ## ten thousand seeds of the simulator (make test plays 200)
	@$(RELEASE) simulate --seeds 0..10000

chaos: cargo ## kill, wipe, restart and cut the power of everything under load, the full count (make test runs a short form)
	@$(FULL) cargo xtask test --show -p fanledger-journal -p fanledger --test chaos --test power

cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer, https://rustup.rs" >&2; exit 3; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: Debian has it in build-essential" >&2; exit 3; }
