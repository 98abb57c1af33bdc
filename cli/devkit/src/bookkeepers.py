"""Balances by account and currency out of an export, as other programs read it: `bookkeepers.py beancount|csv|parquet <file>`.

Prints [[account, currency, balance], …]: debits minus credits, in the currency's decimals. Exit code 1 with what is wrong.
"""

import json
import sys
from collections import defaultdict
from decimal import Decimal


def beancount(path):
    from beancount import loader
    from beancount.core import data

    entries, errors, _ = loader.load_file(path)
    if errors:
        sys.exit("\n".join(str(error.message) for error in errors[:10]))
    ours, sums = {}, defaultdict(Decimal)
    for entry in entries:
        if isinstance(entry, data.Open):
            assert entry.meta["account"] not in ours.values(), entry
            ours[entry.account] = entry.meta["account"]
        elif isinstance(entry, data.Transaction):
            for posting in entry.postings:
                sums[ours[posting.account], posting.units.currency.lower()] += posting.units.number
    return sums


def csv(path):
    import csv

    sums = defaultdict(Decimal)
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, strict=True):
            amount, minor = Decimal(row["amount"]), int(row["amount_minor"])
            assert amount == minor * Decimal(10) ** amount.as_tuple().exponent, row
            assert (row["side"] == "credit") == (minor < 0), row
            sums[row["account"], row["currency"]] += amount
    return sums


def parquet(path):
    import pyarrow.parquet

    sums, decimals = defaultdict(int), {}
    file = pyarrow.parquet.ParquetFile(path)
    columns = ["account", "currency", "amount_minor", "decimals"]
    for batch in file.iter_batches(columns=columns):
        for account, currency, minor, places in zip(*(batch.column(name).to_pylist() for name in columns)):
            sums[account, currency] += minor
            assert decimals.setdefault(currency, places) == places, currency
    for name in ("occurred_at", "effective_at", "recorded_at"):
        kind = file.schema_arrow.field(name).type
        assert str(kind) == "timestamp[us, tz=UTC]", kind
    return {key: Decimal(minor).scaleb(-decimals[key[1]]) for key, minor in sums.items()}


def main():
    form, path = sys.argv[1:]
    sums = {"beancount": beancount, "csv": csv, "parquet": parquet}[form](path)
    json.dump([[account, currency, f"{sum:f}"] for (account, currency), sum in sorted(sums.items())], sys.stdout)


main()
