#!/usr/bin/env python3
"""A second verifier of Fanledger's journal, written from docs/verify.md: Python's standard library and nothing else.

    python3 docs/verify.py journal journal.jsonl [--against today.checkpoint --public-key KEY]
    python3 docs/verify.py checkpoint today.checkpoint --public-key KEY
    python3 docs/verify.py proof 4711.tlog-proof --public-key KEY [--origin ORIGIN]

`journal.jsonl` is what `fanledger journal export` writes; `-` reads standard input. KEY is what
`fanledger journal checkpoint --public-key` prints. The answer is JSON. Exit codes: 0 all agrees, 1 it does not, 2 usage,
3 something could not be read.
"""

import argparse
import base64
import binascii
import collections
import datetime
import hashlib
import json
import re
import sys

LEAF_TAG = b"fanledger/leaf/v1\0"
CHAIN_TAG = b"fanledger/chain/v1\0"
POSTING_MINOR_MAX = 2**53 - 1
SATELLITES = {
    "stripe_refund",
    "stripe_dispute",
    "stripe_transfer_reversal",
    "stripe_fee_refund",
    "stripe_balance_transaction",
}
POSTING = SATELLITES | {
    "stripe_charge",
    "stripe_transfer",
    "stripe_payout",
    "stripe_application_fee",
    "stripe_topup",
    "manual_entry",
    "payout_run",
}
CLEARING = "assets:stripe:clearing"
# Where several hold at one position, the first of these is told.
KINDS = ["gap", "content", "order", "chain", "head", "balance"]


class Refused(Exception):
    """Something does not hold; the text says what."""


def sha256(data):
    return hashlib.sha256(data).digest()


def be64(number):
    # Two's complement, so that what was tampered with can be negative.
    return (number % 2**64).to_bytes(8, "big")


def text(value):
    data = value.encode()
    return be64(len(data)) + data


# Digests of events, and the Merkle tree.


def leaf_of(event):
    return sha256(
        LEAF_TAG
        + text(event["aggregate_type"])
        + text(event["aggregate_id"])
        + be64(event["sequence"])
        + text(event["event_type"])
        + text(event["event_version"])
        + bytes.fromhex(event["event_id"].replace("-", ""))
        + text(event["payload"])
        + text(event["metadata"])
    )


def chain_of(previous, event, leaf):
    return sha256(CHAIN_TAG + previous + be64(event["position"]) + be64(event["recorded_at_micros"]) + leaf)


def node_of_event(event, leaf):
    return sha256(b"\0" + be64(event["position"]) + be64(event["recorded_at_micros"]) + leaf)


def node_of_children(left, right):
    return sha256(b"\1" + left + right)


class Tree:
    """RFC 6962's Merkle tree hash, of events that come one by one."""

    def __init__(self):
        self.size = 0
        self.peaks = []

    def push(self, node):
        size = self.size
        while size & 1:
            node = node_of_children(self.peaks.pop(), node)
            size >>= 1
        self.peaks.append(node)
        self.size += 1

    def root(self):
        if not self.peaks:
            return sha256(b"")
        node = self.peaks[-1]
        for left in reversed(self.peaks[:-1]):
            node = node_of_children(left, node)
        return node


def root_of_path(node, index, size, path):
    """RFC 9162, section 2.1.3.2; None where the path has not the length that it must have."""
    if not 0 <= index < size:
        return None
    last = size - 1
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            node = node_of_children(sibling, node)
            while not index & 1 and index:
                index >>= 1
                last >>= 1
        else:
            node = node_of_children(node, sibling)
        index >>= 1
        last >>= 1
    return node if last == 0 else None


# Ed25519, RFC 8032, section 5.1: verification alone, so nothing here need be constant in time.

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)


def recover_x(y, sign):
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P)
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_MINUS_1 % P
    if (x * x - x2) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


def point(data):
    """A point in extended coordinates (X, Y, Z, T) from its 32 bytes; None where they are none."""
    number = int.from_bytes(data, "little")
    y = number & (2**255 - 1)
    x = recover_x(y, number >> 255)
    return None if x is None else (x, y, 1, x * y % P)


def add(a, b):
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g = 2 * a[3] * b[3] * D % P
    h = 2 * a[2] * b[2] % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar, a):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, a)
        a = add(a, a)
        scalar >>= 1
    return result


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = (recover_x(BASE_Y, 0), BASE_Y, 1, recover_x(BASE_Y, 0) * BASE_Y % P)


def signature_holds(public_key, message, signature):
    if len(public_key) != 32 or len(signature) != 64:
        return False
    a, r = point(public_key), point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % ORDER
    left, right = multiply(s, BASE), add(r, multiply(k, a))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


# Checkpoints: C2SP tlog-checkpoint, a signed note.


def base64_bytes(value, what):
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(f"{what} is not base64") from None


def key_id(name, public_key):
    return sha256(name.encode() + b"\n\x01" + public_key)[:4]


def parse_key(value):
    """(name, public key) of `<name>+<id>+<base64>`."""
    parts = value.split("+", 2)
    if len(parts) != 3:
        raise Refused("the public key is not of the form <origin>+<id>+<base64>")
    name, identity, typed = parts[0], parts[1], base64_bytes(parts[2], "the public key")
    if len(typed) != 33 or typed[0] != 1 or key_id(name, typed[1:]).hex() != identity:
        raise Refused("the public key is not an Ed25519 key, or not the one that its id names")
    return name, typed[1:]


def open_checkpoint(note, key):
    """Origin, size and root of a checkpoint that the key signed."""
    name, public_key = key
    if re.search(r"[\x00-\x09\x0b-\x1f]", note):
        raise Refused("not a checkpoint: it holds control characters")
    body, separator, signatures = note.rpartition("\n\n")
    body += "\n"
    lines = body.split("\n")
    if not separator or not signatures.endswith("\n") or len(lines) < 4 or "" in lines[:-1]:
        raise Refused("not a checkpoint: its lines are not those of one")
    origin, size, root = lines[0], lines[1], base64_bytes(lines[2], "the root")
    if not re.fullmatch(r"0|[1-9][0-9]*", size, re.ASCII) or len(root) != 32:
        raise Refused("not a checkpoint: its size or root is not one")
    if origin != name:
        raise Refused(f"a checkpoint of another journal: it is of {origin}, and not of {name}")
    signed = False
    for line in signatures[:-1].split("\n"):
        match = re.fullmatch(r"\u2014 (\S+) (\S+)", line)
        if not match:
            raise Refused("not a checkpoint: a signature line is not one")
        signature = base64_bytes(match[2], "a signature")
        if match[1] == name and signature[:4] == key_id(name, public_key):
            if not signature_holds(public_key, body.encode(), signature[4:]):
                raise Refused("the signature is not of this text")
            signed = True
    if not signed:
        raise Refused("signed by another key")
    return {"origin": origin, "size": int(size), "root": root}


def open_proof(proof, key, origin):
    """The event that a proof shows to be in the journal, and the checkpoint."""
    head, _, note = proof.partition("\n\n")
    lines = head.split("\n")
    if len(lines) < 3 or lines[0] != "c2sp.org/tlog-proof@v1" or not lines[1].startswith("extra "):
        raise Refused("not a proof: its first lines are not those of one")
    try:
        event = json.loads(base64_bytes(lines[1][6:], "the extra data"))["event"]
        leaf = leaf_of(event)
        node = node_of_event(event, leaf)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused("not a proof of an event: its extra data is not what fanledger writes") from None
    if lines[2] != f"index {event['position'] - 1}":
        raise Refused("not a proof: its index is not that of its event")
    path = [base64_bytes(line, "a line of the path") for line in lines[3:]]
    checkpoint = open_checkpoint(note, key)
    if origin is not None and origin != checkpoint["origin"]:
        raise Refused(f"a proof for another journal: it is of {checkpoint['origin']}, and not of {origin}")
    if root_of_path(node, event["position"] - 1, checkpoint["size"], path) != checkpoint["root"]:
        raise Refused("the event is not in the journal that the checkpoint signed")
    return event, checkpoint


# The books.


BOOKED = ("EntryPosted", "BalanceTransactionObserved", "StripeObjectsLinked", "PeriodClosed", "PeriodReopened")


def instant(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


class Books:
    """Entries balance; nothing is booked into what is closed; each stream's clearing is the sum of the nets of the balance
    transactions that it counts; and each of these counts in one stream."""

    def __init__(self):
        self.difference = collections.defaultdict(lambda: collections.defaultdict(int))
        self.counted = {}
        self.alone = collections.defaultdict(set)
        self.gave_up = set()
        self.first_open = None

    def event(self, event):
        """The id of the entry that it posts, if it posts one."""
        kind, stream = event["event_type"], (event["aggregate_type"], event["aggregate_id"])
        if kind not in BOOKED:
            return None
        if event["event_version"] != "1":
            raise Refused(f"unknown event {kind} version {event['event_version']}")
        is_satellite = stream[0] in SATELLITES
        try:
            payload = json.loads(event["payload"])
            if kind == "EntryPosted" and stream[0] not in POSTING:
                raise Refused(f"{kind} is in {'/'.join(stream)}, where nothing posts")
            if kind in ("PeriodClosed", "PeriodReopened") and stream != ("period", "platform"):
                raise Refused(f"{kind} is in {'/'.join(stream)}, where nothing closes")
            if kind == "EntryPosted":
                self.entry(stream, payload)
                return payload["entry_id"]
            if kind in ("PeriodClosed", "PeriodReopened"):
                self.first_open = instant(payload["first_open"]) if payload["first_open"] is not None else None
            elif kind == "BalanceTransactionObserved":
                transaction = payload["transaction"]
                self.seen(stream, is_satellite, transaction["id"], transaction["currency"], transaction["net"])
            elif is_satellite and stream not in self.gave_up:
                self.gave_up.add(stream)
                for transaction in self.alone.pop(stream, ()):
                    currency, net = self.counted.pop((stream, transaction))
                    self.difference[stream][currency] += net
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refused(f"the event cannot be read: {error!r}") from None
        return None

    def entry(self, stream, payload):
        sums = collections.defaultdict(int)
        if len(payload["postings"]) < 2 or not isinstance(payload["entry_id"], str):
            raise Refused("an entry needs an id and at least two postings")
        for posting in payload["postings"]:
            account, minor, currency = posting["account"], posting["minor"], posting["currency"]
            sign = {"debit": 1, "credit": -1}[posting["side"]]
            is_amount = type(minor) is int and 1 <= minor <= POSTING_MINOR_MAX
            if not account or not is_amount or not re.fullmatch("[a-z]{3}", currency):
                raise Refused("a posting needs an account, a currency and an amount from 1 to 2^53 - 1")
            sums[currency] += sign * minor
            if account == CLEARING:
                self.difference[stream][currency] += sign * minor
        for currency, total in sums.items():
            if total:
                raise Refused(f"{payload['entry_id']}: {currency} does not sum to zero: {total}")
        if self.first_open is not None and instant(payload["effective_at"]) < self.first_open:
            raise Refused(f"{payload['entry_id']} is booked into a closed period")

    def seen(self, stream, is_satellite, transaction, currency, net):
        if type(net) is not int:
            raise Refused("a net that is not an integer")
        if stream in self.gave_up:
            # It waits to be handed on; its stream's books are empty.
            return
        replaced = self.counted.get((stream, transaction))
        self.counted[stream, transaction] = (currency, net)
        for currency, change in [(currency, net)] + ([(replaced[0], -replaced[1])] if replaced else []):
            self.difference[stream][currency] -= change
        if is_satellite:
            self.alone[stream].add(transaction)

    def end(self):
        places = collections.Counter(transaction for _, transaction in self.counted)
        for transaction, streams in places.items():
            if streams > 1:
                raise Refused(f"{transaction} counts in {streams} streams")
        for stream, currencies in self.difference.items():
            for currency, total in currencies.items():
                if total:
                    raise Refused(f"clearing of {'/'.join(stream)} in {currency} less its net is {total}, not zero")


# The journal.


class Found(Exception):
    """A divergence: position, kind, in words."""

    def __init__(self, position, kind, detail):
        super().__init__(position, kind, detail)
        self.place = (position, KINDS.index(kind), detail)


class Journal:
    def __init__(self, checkpoints):
        self.next = 1
        self.chain = bytes(32)
        self.recorded_at_micros = None
        self.sequences = {}
        self.batches = collections.deque()
        self.covered = 0
        self.head = 0
        self.last_row = 0
        self.tree = Tree()
        self.books = Books()
        self.posted = {}
        self.registered = {}
        self.checkpoints = collections.deque(sorted(checkpoints, key=lambda checkpoint: checkpoint["size"]))
        self.found = None

    def note(self, found):
        self.found = min(self.found, found.place) if self.found else found.place

    def read(self, lines):
        try:
            self.judge_checkpoints()
        except Found as found:
            self.note(found)
        origin = None
        for line in lines:
            row = json.loads(line)
            kind = row["line"]
            if kind == "event":
                self.last_row = max(self.last_row, row["position"])
                # Nothing after the first divergence is looked at, but where the journal ends.
                if self.found is None:
                    try:
                        self.event(row)
                    except Found as found:
                        self.note(found)
            elif kind == "batch":
                self.head = max(self.head, row["last_position"])
                self.batches.append(row)
            elif kind == "entry_id":
                self.registered[row["entry_id"]] = row["position"]
            elif kind == "journal" and row["format"] == 1:
                origin = f"fanledger/journal/{row['journal_id']}"
            else:
                raise ValueError("a line of a kind, or an export of a format, that this verifier does not know")
        if origin is None:
            raise ValueError("not an export: it has no line for the journal")
        for checkpoint in self.checkpoints:
            if checkpoint["origin"] != origin:
                raise Refused(f"a checkpoint of another journal: it is of {checkpoint['origin']}, and not of {origin}")
        self.end()

    def event(self, row):
        at = row["position"]
        if at != self.next:
            raise Found(self.next, "gap", "there is no row at this position")
        leaf = leaf_of(row)
        if leaf.hex() != row["leaf"]:
            raise Found(at, "content", f"content digests to {leaf.hex()}, its leaf is {row['leaf']}")
        stream = (row["aggregate_type"], row["aggregate_id"])
        if row["sequence"] != self.sequences.get(stream, 0) + 1:
            raise Found(at, "order", f"sequence {row['sequence']} after {self.sequences.get(stream, 0)}")
        chain = chain_of(self.chain, row, leaf)
        if chain.hex() != row["chain"]:
            raise Found(at, "chain", f"chain is {row['chain']}, it follows to be {chain.hex()}")
        if self.recorded_at_micros is not None and row["recorded_at_micros"] < self.recorded_at_micros:
            raise Found(at, "chain", "recorded before the event before it")
        self.batch(row)
        self.tree.push(node_of_event(row, leaf))
        self.judge_checkpoints()
        try:
            entry_id = self.books.event(row)
        except Refused as refused:
            raise Found(at, "balance", str(refused)) from None
        if entry_id is not None:
            self.posted[at] = entry_id
        self.chain, self.recorded_at_micros, self.next = chain, row["recorded_at_micros"], at + 1
        self.sequences[stream] = row["sequence"]

    def batch(self, row):
        blamed = self.covered + 1
        if not self.batches:
            raise Found(blamed, "chain", "no batch covers this position")
        batch = self.batches[0]
        if batch["first_position"] != blamed:
            raise Found(blamed, "chain", f"the batch that ends at {batch['last_position']} does not begin here")
        if batch["recorded_at_micros"] != row["recorded_at_micros"]:
            raise Found(blamed, "chain", "the batch has another time than its events")
        if batch["last_position"] == row["position"]:
            if batch["chain"] != row["chain"]:
                raise Found(blamed, "chain", "the batch has another chain than its last event")
            self.covered = row["position"]
            self.batches.popleft()

    def judge_checkpoints(self):
        while self.checkpoints and self.checkpoints[0]["size"] == self.tree.size:
            if self.checkpoints[0]["root"] != self.tree.root():
                raise Found(max(self.tree.size, 1), "chain", "a checkpoint of as many events has another root")
            self.checkpoints.popleft()

    def end(self):
        last = self.next - 1
        if self.found is None:
            try:
                self.after_the_last_row(last)
            except Found as found:
                self.note(found)
        until = self.found[0] - 1 if self.found else last
        posted = {(entry_id, at) for at, entry_id in self.posted.items() if at <= until}
        registered = {(entry_id, at) for entry_id, at in self.registered.items() if at <= until}
        differing = [max(at, 1) for _, at in posted ^ registered]
        if differing:
            self.note(Found(min(differing), "balance", "the registered ids of entries are not those of the events"))
        elif self.found is None and any(at > self.head for at in self.registered.values()):
            self.note(Found(self.head + 1, "head", "an entry is registered beyond the journal's end"))

    def after_the_last_row(self, last):
        if self.head > self.last_row:
            raise Found(self.last_row + 1, "head", f"the journal's rows end at {self.last_row}")
        if self.covered < last:
            raise Found(self.covered + 1, "chain", "no batch covers this position")
        try:
            self.books.end()
        except Refused as refused:
            raise Found(last, "balance", str(refused)) from None
        if self.checkpoints:
            raise Found(last + 1, "head", "a checkpoint was signed when the journal held more events")

    def answer(self):
        divergence = None
        if self.found:
            divergence = {"position": self.found[0], "kind": KINDS[self.found[1]], "detail": self.found[2]}
        return {
            "ok": divergence is None,
            "events": self.next - 1,
            "head": self.head,
            "root": None if divergence else self.tree.root().hex(),
            "first_divergence": divergence,
        }


# The command line.


def read_file(path):
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def run(arguments):
    key = parse_key(arguments.public_key) if arguments.public_key else None
    if arguments.what == "journal":
        if arguments.against and key is None:
            raise Refused("--against needs --public-key")
        journal = Journal([open_checkpoint(read_file(path), key) for path in arguments.against])
        if arguments.file == "-":
            journal.read(sys.stdin)
        else:
            with open(arguments.file, encoding="utf-8", newline="\n") as lines:
                journal.read(lines)
        return journal.answer()
    if arguments.what == "checkpoint":
        checkpoint = open_checkpoint(read_file(arguments.file), key)
        return {"ok": True, **checkpoint, "root": checkpoint["root"].hex()}
    event, checkpoint = open_proof(read_file(arguments.file), key, arguments.origin)
    return {"ok": True, **checkpoint, "root": checkpoint["root"].hex(), "event": event}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    journal = commands.add_parser("journal", help="check an export")
    journal.add_argument("file")
    journal.add_argument("--against", action="append", default=[], metavar="CHECKPOINT")
    journal.add_argument("--public-key")
    for what, described in [("checkpoint", "check a checkpoint's signature"), ("proof", "check a proof")]:
        command = commands.add_parser(what, help=described)
        command.add_argument("file")
        command.add_argument("--public-key", required=True)
        command.add_argument("--origin")
    try:
        answer = run(parser.parse_args())
    except Refused as refused:
        answer = {"ok": False, "detail": str(refused)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"error: {error!r}", file=sys.stderr)
        return 3
    print(json.dumps(answer, indent=2))
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
