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

# The demo's webhooks, then what Stripe tells by its list alone (its own fees, reserves), then the release of what has
# settled long enough by the demo's last days, so that creators have something to be paid. Each is a no-op when repeated.
demo() {
    "$FANLEDGER" seed && "$FANLEDGER" stripe sync && "$FANLEDGER" ledger release --through 2026-10-25
}
demo || echo "the demo is not complete; the servers go on, and \`make seed\` tries again" >&2

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
wait "$dev"
