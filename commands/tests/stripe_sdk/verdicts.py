#!/usr/bin/env python3
"""Prints what Stripe's Python SDK says of each vector: `verdicts.py vectors.json`. Needs `pip install stripe`."""
import json
import sys
import time
from importlib.metadata import version

import stripe

verdicts = {}
for vector in json.load(open(sys.argv[1])):
    body = bytes.fromhex(vector["body_hex"]) if "body_hex" in vector else vector["body"].encode()
    time.time = lambda now=vector["now"]: now
    verdicts[vector["name"]] = "refused"
    for secret in vector["secrets"]:
        try:
            stripe.WebhookSignature.verify_header(body, vector["header"], secret, stripe.Webhook.DEFAULT_TOLERANCE)
            verdicts[vector["name"]] = "accepted"
        except Exception:
            # Whatever it raises, the webhook is not believed.
            pass
print(json.dumps({"sdk": f"stripe-python {version('stripe')}", "verdicts": verdicts}))
