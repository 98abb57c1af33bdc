"""The baseline of `fanledger bench webhook`: what a careful Python service does with a Stripe webhook.

FastAPI, asyncpg, Stripe's own library. It verifies the signature over the raw bytes, stores the event once, and answers
after the commit. One INSERT outside an explicit transaction is one transaction: the cheapest way to be durable.
"""
import os
from contextlib import asynccontextmanager

import asyncpg
import stripe
from fastapi import FastAPI, Request, Response

SECRET = os.environ["BENCH_WEBHOOK_SECRET"]
DATABASE_URL = os.environ["BENCH_DATABASE_URL"]

INSERT = """
    INSERT INTO webhooks (id, type, api_version, created, livemode, body)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING RETURNING position
"""


@asynccontextmanager
async def lifespan(app):
    app.state.pool = await asyncpg.create_pool(DATABASE_URL, min_size=16, max_size=16)
    yield
    await app.state.pool.close()


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz():
    return {"ok": True}


@app.post("/webhooks/stripe")
async def receive(request: Request):
    body = await request.body()
    try:
        event = stripe.Webhook.construct_event(body, request.headers.get("stripe-signature"), SECRET)
    except (ValueError, stripe.SignatureVerificationError):
        return Response(status_code=400)
    position = await request.app.state.pool.fetchval(
        INSERT, event.id, event.type, event.api_version, event.created, event.livemode, body.decode()
    )
    return {"received": True, "position": position, "duplicate": position is None}
