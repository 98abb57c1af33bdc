#!/bin/sh
# `make run`: starts everything, seeds the demo once it answers, and stops all of it on Ctrl-C.
# FANLEDGER names the binary.
set -eu

"$FANLEDGER" dev &
dev=$!

# Ctrl-C reaches the whole group and `dev` stops by itself; a plain kill reaches this shell alone. Either way: tell it,
# and leave only when it has stopped, so that the prompt comes back to a quiet machine.
stop() {
    trap '' INT TERM
    kill -TERM "$dev" 2>/dev/null || true
    wait "$dev" || exit $?
    exit 0
}
trap stop INT TERM

until "$FANLEDGER" dev env --json >/dev/null 2>&1; do
    # It says itself why it ended.
    kill -0 "$dev" 2>/dev/null || { wait "$dev"; exit $?; }
    sleep 0.2
done

"$FANLEDGER" seed || echo "the demo was not seeded; the servers go on, and \`make seed\` tries again" >&2
wait "$dev"
