#!/usr/bin/env python3
"""Writes vectors.json: webhooks with their Stripe-Signature header, made without any of the code under test.

Each has a name, a body (text, or hex where it is not UTF-8), a header or null, the secrets that are configured, and the time.
A vector on which we knowingly differ from SDKs that agree with each other says how we decide, and by which rule.
"""
import hashlib
import hmac
import json
import pathlib

NOW = 1_700_000_000
SECRET = "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH"
OLD_SECRET = "whsec_before_it_was_rolled"
OTHER_SECRET = "whsec_of_another_endpoint"
BODY = '{\n  "id": "evt_1",\n  "object": "event",\n  "amount": 1099\n}'

vectors = []


def v1(t=NOW, body=BODY, secret=SECRET):
    body = body if isinstance(body, bytes) else body.encode()
    return hmac.new(secret.encode(), f"{t}.".encode() + body, hashlib.sha256).hexdigest()


def add(name, header, body=BODY, secrets=(SECRET,), ours=None, rule=None):
    vector = {"name": name, "header": header, "secrets": list(secrets), "now": NOW}
    vector.update({"body_hex": body.hex()} if isinstance(body, bytes) else {"body": body})
    if ours:
        vector.update({"ours": ours, "rule": rule})
    vectors.append(vector)


ONE_T = "exactly one t, digits only: SDKs for other languages disagree about anything else"
FUTURE = "more than 300 s in the future"
S = v1()
add("valid", f"t={NOW},v1={S}")
add("v1 before t", f"v1={S},t={NOW}")
add("with v0", f"t={NOW},v1={S},v0={v1(secret=OTHER_SECRET)}")
add("v0 only", f"t={NOW},v0={S}")
add("v2 only", f"t={NOW},v2={S}")
add("unknown schemes beside", f"x=1,t={NOW},v9=abc,v1={S},z")
add("several v1, first matches", f"t={NOW},v1={S},v1={v1(secret=OTHER_SECRET)}")
add("several v1, last matches", f"t={NOW},v1={v1(secret=OTHER_SECRET)},v1={S}")
add("several v1, middle matches", f"t={NOW},v1={'0' * 64},v1={S},v1={'f' * 64}")
add("several v1, none matches", f"t={NOW},v1={'0' * 64},v1={'f' * 64}")
add("the same v1 twice", f"t={NOW},v1={S},v1={S}")
add("rolled secret, both configured", f"t={NOW},v1={v1(secret=OLD_SECRET)},v1={S}", secrets=(SECRET, OLD_SECRET))
add("rolled secret, only the old one sent", f"t={NOW},v1={v1(secret=OLD_SECRET)}", secrets=(SECRET, OLD_SECRET))
add("rolled secret, only the old one configured", f"t={NOW},v1={S},v1={v1(secret=OLD_SECRET)}", secrets=(OLD_SECRET,))
add("wrong secret", f"t={NOW},v1={v1(secret=OTHER_SECRET)}")
add("secret without whsec_", f"t={NOW},v1={v1(secret=SECRET.removeprefix('whsec_'))}")
for age in (0, 1, 299, 300, 301, 3600):
    add(f"age {age}", f"t={NOW - age},v1={v1(NOW - age)}")
for ahead in (1, 300):
    add(f"ahead {ahead}", f"t={NOW + ahead},v1={v1(NOW + ahead)}")
for ahead in (301, 86_400, 10**10):
    add(f"ahead {ahead}", f"t={NOW + ahead},v1={v1(NOW + ahead)}", ours="refused", rule=FUTURE)
add("t is 2^63 - 1", f"t={2**63 - 1},v1={v1(2**63 - 1)}", ours="refused", rule=FUTURE)
add("t is 2^63", f"t={2**63},v1={v1(2**63)}", ours="refused", rule=FUTURE)
add("t is 2^64 + now", f"t={2**64 + NOW},v1={v1(2**64 + NOW)}", ours="refused", rule=FUTURE)
add("t is huge", f"t={'9' * 400},v1={v1('9' * 400)}", ours="refused", rule=FUTURE)
add("t is zero", f"t=0,v1={v1(0)}")
add("t is not the one that was signed", f"t={NOW},v1={v1(NOW - 1)}")
add("re-serialised body", f"t={NOW},v1={S}", body=json.dumps(json.loads(BODY)))
add("body with a newline more", f"t={NOW},v1={S}", body=BODY + "\n")
add("signed body alone, without t", f"t={NOW},v1={hmac.new(SECRET.encode(), BODY.encode(), hashlib.sha256).hexdigest()}")
UNICODE = '{"id": "evt_1", "name": "Zoë 🦀 \u2028 \\u00e9"}'
add("unicode body", f"t={NOW},v1={v1(body=UNICODE)}", body=UNICODE)
add("unicode body, escaped on the way", f"t={NOW},v1={v1(body=UNICODE)}", body=json.dumps(json.loads(UNICODE)))
NFD = '{"id": "evt_1", "name": "Zoe\u0308"}'
add("unicode body, normalised on the way", f"t={NOW},v1={v1(body=NFD)}", body='{"id": "evt_1", "name": "Zo\u00eb"}')
add("body with U+0000", f"t={NOW},v1={v1(body=chr(0))}", body="\0")
add("body with a byte order mark", f"t={NOW},v1={v1(body=chr(0xfeff) + BODY)}", body="\ufeff" + BODY,
    ours="accepted", rule="the raw bytes are signed; the Node SDK drops the mark before it looks")
add("body that is not UTF-8", f"t={NOW},v1={v1(body=bytes([255, 254, 123]))}", body=bytes([255, 254, 123]),
    ours="accepted", rule="the raw bytes are signed, and stored whatever they hold")
add("empty body", f"t={NOW},v1={v1(body='')}", body="")
add("no header", None)
add("empty header", "")
add("blank header", " ")
add("only a comma", ",")
add("only commas and equals", "=,=,==")
add("not a header", "hello world")
add("missing t", f"v1={S}")
add("missing v1", f"t={NOW}")
add("empty t", f"t=,v1={S}")
add("t without equals", f"t,v1={S}")
add("t without equals beside t", f"t,t={NOW},v1={S}")
add("empty v1", f"t={NOW},v1=")
add("empty v1 beside v1", f"t={NOW},v1=,v1={S}")
add("v1 without equals", f"t={NOW},v1")
add("v1 without equals beside v1", f"t={NOW},v1,v1={S}")
add("capital T", f"T={NOW},v1={S}")
add("capital V1", f"t={NOW},V1={S}")
add("t twice, both now", f"t={NOW},t={NOW},v1={S}", ours="refused", rule=ONE_T)
add("t twice, the first signed", f"t={NOW},t={NOW - 1},v1={S}")
add("t twice, the last signed", f"t={NOW - 1},t={NOW},v1={S}")
add("t with a space before", f"t= {NOW},v1={S}", ours="refused", rule=ONE_T)
add("t with a space after", f"t={NOW} ,v1={S}", ours="refused", rule=ONE_T)
add("t with a plus", f"t=+{NOW},v1={S}", ours="refused", rule=ONE_T)
add("t with a minus", f"t=-{NOW},v1={v1(-NOW)}")
add("t with a fraction", f"t={NOW}.5,v1={S}")
add("t with letters after", f"t={NOW}s,v1={S}")
add("t with an underscore", f"t=1_700_000_000,v1={S}")
add("t in Arabic-Indic digits", f"t={''.join(chr(0x660 + int(d)) for d in str(NOW))},v1={S}")
add("t with zeros before", f"t=000{NOW},v1={S}")
add("t with zeros before, signed so", f"t=000{NOW},v1={v1('000' + str(NOW))}")
add("t in hex", f"t={hex(NOW)},v1={S}")
add("t with another equals after", f"t={NOW}=1,v1={S}")
add("v1 with another equals after", f"t={NOW},v1={S}=1")
add("spaces after commas", f"t={NOW}, v1={S}")
add("space before t", f" t={NOW},v1={S}")
add("space after v1", f"t={NOW},v1={S} ")
add("semicolons", f"t={NOW};v1={S}")
add("trailing comma", f"t={NOW},v1={S},")
add("leading comma", f",t={NOW},v1={S}")
add("uppercase hex", f"t={NOW},v1={S.upper()}")
add("odd hex", f"t={NOW},v1={S[:-1]}")
add("hex and more", f"t={NOW},v1={S}00")
add("half of the hex", f"t={NOW},v1={S[:32]}")
add("base64", f"t={NOW},v1=" + __import__("base64").b64encode(bytes.fromhex(S)).decode())
add("not hex", f"t={NOW},v1={'z' * 64}")
add("v1 that is not ASCII", f"t={NOW},v1={'é' * 32}")

path = pathlib.Path(__file__).parent / "vectors.json"
path.write_text(json.dumps(vectors, indent=1, ensure_ascii=True) + "\n")
print(f"{len(vectors)} vectors")
