#!/bin/sh
# `make run`: starts everything, seeds the demo once it answers, and stops all of it on Ctrl-C.
# `make up` (`run.sh up`): the same, and leaves it running in the background; `fanledger dev stop` stops it.
# FANLEDGER names the binary.
set -eu

background=${1:-}
data_dir=${FANLEDGER_DATA_DIR:-.fanledger}
log=$data_dir/dev.log

if [ "$background" = up ]; then
    if "$FANLEDGER" dev env --json >/dev/null 2>&1; then
        echo "It is up already: make logs follows it, make down stops it."
        "$FANLEDGER" dev env | grep '^# [gm]'
        exit 0
    fi
    mkdir -p "$data_dir"
    # It outlives this terminal.
    nohup "$FANLEDGER" dev >"$log" 2>&1 </dev/null &
else
    "$FANLEDGER" dev &
fi
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
    # It says itself why it ended, here or in its log.
    kill -0 "$dev" 2>/dev/null || {
        [ "$background" != up ] || cat "$log" >&2
        wait "$dev"
        exit $?
    }
    sleep 0.2
done

# The demo's webhooks, then what Stripe tells by its list alone (its own fees, reserves), then the release of what has
# settled long enough by the demo's last days, so that creators have something to be paid. Each is a no-op when repeated.
demo() {
    "$FANLEDGER" seed && "$FANLEDGER" stripe sync && "$FANLEDGER" ledger release --through 2026-10-25
}
demo || echo "the demo is not complete; the servers go on, and \`make seed\` tries again" >&2

[ "$background" != up ] || "$FANLEDGER" dev env | grep '^# [gm]'

# A link for each who has pages, good for a day's work. What is after `#` stays in the browser.
if [ -f web-yew/dist/index.html ]; then
    url=$("$FANLEDGER" dev env --json | sed -n 's/.*"gateway_url": *"\([^"]*\)".*/\1/p')
    echo
    echo "  Sign in by a link:"
    for role in finance operator; do
        printf '    %-9s %s/sign-in#%s\n' "$role" "$url" "$("$FANLEDGER" token mint --role "$role" --subject "$role:dev" --ttl 12h)"
    done
    echo
fi
if [ "$background" = up ]; then
    echo "It goes on in the background: make logs follows it, make down stops it."
    exit 0
fi
wait "$dev"
