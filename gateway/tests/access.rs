//! Who may not, for every route that the router has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{KEY, TestApp, token};
use fanledger_gateway::{GatewayState, Parts, Role, StateError, openapi};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// Every route with the roles that may use it; none where it is open to all. A new route fails `every_route_is_listed`
/// until it stands here, and standing here gives it its refused-access cases.
const ROUTES: &[(&str, &str, &[Role])] = &[
    ("get", "/api/v1/ledger/accounts", FINANCE),
    ("get", "/api/v1/ledger/accounts/{account}", FINANCE),
    ("get", "/api/v1/ledger/accounts/{account}/postings", FINANCE),
    ("post", "/api/v1/ledger/application-fees/{fee}/attribution", FINANCE),
    ("get", "/api/v1/ledger/attributions", FINANCE),
    ("get", "/api/v1/ledger/awaited", FINANCE),
    ("post", "/api/v1/ledger/charges/{charge}/attribution", FINANCE),
    ("get", "/api/v1/ledger/creators", FINANCE),
    ("get", "/api/v1/ledger/creators/{creator}/activity", FINANCE),
    ("post", "/api/v1/ledger/creators/{creator}/payouts/hold", FINANCE),
    ("post", "/api/v1/ledger/creators/{creator}/payouts/resume", FINANCE),
    ("get", "/api/v1/ledger/creators/{creator}/statement", FINANCE),
    ("get", "/api/v1/ledger/entries/{entry_id}", FINANCE),
    ("post", "/api/v1/ledger/entries/{entry_id}/reverse", FINANCE),
    ("get", "/api/v1/ledger/manual-entries", FINANCE),
    ("post", "/api/v1/ledger/manual-entries", FINANCE),
    ("get", "/api/v1/ledger/manual-entries/{id}", FINANCE),
    ("post", "/api/v1/ledger/manual-entries/{id}/approve", FINANCE),
    ("post", "/api/v1/ledger/manual-entries/{id}/reject", FINANCE),
    ("get", "/api/v1/ledger/payout-runs", FINANCE),
    ("post", "/api/v1/ledger/payout-runs", FINANCE),
    ("get", "/api/v1/ledger/payout-runs/{run}", FINANCE),
    ("post", "/api/v1/ledger/payout-runs/{run}/approve", FINANCE),
    ("post", "/api/v1/ledger/payout-runs/{run}/cancel", FINANCE),
    ("get", "/api/v1/ledger/payouts/holds", FINANCE),
    ("get", "/api/v1/ledger/payouts/proposal", FINANCE),
    ("get", "/api/v1/ledger/periods", FINANCE),
    ("post", "/api/v1/ledger/periods/{period}/close", FINANCE),
    ("post", "/api/v1/ledger/periods/{period}/reopen", FINANCE),
    ("get", "/api/v1/ledger/periods/{period}/review", FINANCE),
    ("get", "/api/v1/ledger/stripe-events", BOTH),
    ("get", "/api/v1/ledger/stripe-events/{id}", BOTH),
    ("post", "/api/v1/ledger/stripe-events/{id}/open", FINANCE),
    ("get", "/api/v1/ledger/suspense", FINANCE),
    ("post", "/api/v1/ledger/transfers/{transfer}/attribution", FINANCE),
    ("get", "/api/v1/ledger/trial-balance", FINANCE),
    ("get", "/api/v1/ops/journal", OPERATORS),
    ("get", "/api/v1/ops/projections", OPERATORS),
    ("get", "/api/v1/ops/projections/{name}/operation", OPERATORS),
    ("post", "/api/v1/ops/projections/{name}/pause", OPERATORS),
    ("post", "/api/v1/ops/projections/{name}/rebuild", OPERATORS),
    ("post", "/api/v1/ops/projections/{name}/resume", OPERATORS),
    ("post", "/api/v1/ops/projections/{name}/retire", OPERATORS),
    ("post", "/api/v1/ops/projections/{name}/rollback", OPERATORS),
    ("post", "/api/v1/ops/projections/{name}/skip", OPERATORS),
    ("post", "/api/v1/ops/projections/{name}/verify", OPERATORS),
    ("get", "/api/v1/stream", BOTH),
    ("get", "/docs", OPEN),
    ("get", "/healthz", OPEN),
    ("get", "/openapi.json", OPEN),
    ("get", "/readyz", OPEN),
    ("post", "/webhooks/stripe", OPEN),
];
const FINANCE: &[Role] = &[Role::Finance, Role::Admin];
const OPERATORS: &[Role] = &[Role::Operator, Role::Admin];
const BOTH: &[Role] = &[Role::Finance, Role::Operator, Role::Admin];
const OPEN: &[Role] = &[];

fn concrete(path: &str) -> String {
    path.replace("{account}", "assets:bank")
        .replace("{entry_id}", "ch_1:1:20260101T000000Z")
        .replace("{charge}", "ch_1")
        .replace("{creator}", "crt_1")
        .replace("{transfer}", "tr_1")
        .replace("{fee}", "fee_1")
        .replace("{id}", "evt_1")
        .replace("{run}", "por_1")
        .replace("{name}", "balances")
        .replace("{period}", "2026-01")
}

fn method(text: &str) -> Method {
    text.to_uppercase().parse().unwrap()
}

fn signed(header: &Value, claims: &Value, key: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn bad_tokens() -> Vec<(&'static str, String)> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let roles: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
    let good = json!({"sub": "s", "roles": roles, "iss": "fanledger", "aud": "fanledger-api", "exp": now + 60, "nbf": now, "iat": now, "jti": "1"});
    let with = |field: &str, value: Value| {
        let mut claims = good.clone();
        claims[field] = value;
        claims
    };
    let hs256 = json!({"alg": "HS256", "typ": "JWT"});
    let mut tokens = vec![
        ("expired", signed(&hs256, &with("exp", json!(now - 10)), &KEY)),
        ("not yet", signed(&hs256, &with("nbf", json!(now + 60)), &KEY)),
        ("from the future", signed(&hs256, &with("iat", json!(now + 60)), &KEY)),
        ("wrong audience", signed(&hs256, &with("aud", json!("else")), &KEY)),
        ("wrong issuer", signed(&hs256, &with("iss", json!("else")), &KEY)),
        ("wrong key", signed(&hs256, &good, &[1; 32])),
        ("alg none", signed(&json!({"alg": "none"}), &good, &KEY)),
        (
            "alg none, unsigned",
            format!("{}.", signed(&json!({"alg": "none"}), &good, &KEY).rsplit_once('.').unwrap().0),
        ),
        ("alg HS512", signed(&json!({"alg": "HS512"}), &good, &KEY)),
        ("alg RS256, signed as HS256", signed(&json!({"alg": "RS256"}), &good, &KEY)),
        ("unknown role", signed(&hs256, &with("roles", json!(["root"])), &KEY)),
        ("malformed", "not-a-token-at-all".to_owned()),
        ("empty", String::new()),
    ];
    for claim in ["sub", "roles", "iss", "aud", "exp", "nbf", "iat", "jti"] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(claim);
        tokens.push(("a claim is missing", signed(&hs256, &claims, &KEY)));
    }
    tokens
}

/// The paths that axum itself routes, read from its debug form: what is in the router but in no document shows up here.
fn routed(app: &TestApp) -> BTreeSet<String> {
    let debug = format!("{:?}", app.router);
    let texts = debug.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/'));
    // The fallback has paths of axum's own.
    texts.filter(|text| !text.contains("__private") && *text != "/").map(str::to_owned).collect()
}

#[tokio::test]
async fn every_route_is_listed() {
    let app = TestApp::new().await;
    let listed: BTreeSet<String> = ROUTES.iter().map(|(_, path, _)| (*path).to_owned()).collect();
    assert_eq!(routed(&app), listed);

    let mut documented: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let document = serde_json::to_value(openapi()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let roles = operation["x-roles"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|role| role.as_str().unwrap().to_owned())
                .collect();
            documented.insert((path.clone(), method.clone()), roles);
        }
    }
    // The document and its page do not document themselves.
    let listed = ROUTES.iter().filter(|(_, path, _)| !["/docs", "/openapi.json"].contains(path));
    let listed = listed.map(|(method, path, roles)| {
        (((*path).to_owned(), (*method).to_owned()), roles.iter().map(|role| role.as_str().to_owned()).collect())
    });
    assert_eq!(documented, listed.collect());
}

#[tokio::test]
async fn no_token_no_access() {
    let app = TestApp::new().await;
    for (verb, path, _) in ROUTES.iter().filter(|(_, _, roles)| !roles.is_empty()) {
        let answer = app.call(method(verb), &concrete(path)).send().await;
        answer.problem(401, "token-missing");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"fanledger\""), "{path}");
    }
}

#[tokio::test]
async fn a_token_that_does_not_hold_gives_no_access() {
    let app = TestApp::new().await;
    for (verb, path, _) in ROUTES.iter().filter(|(_, _, roles)| !roles.is_empty()) {
        for (what, token) in bad_tokens() {
            let answer = app.call(method(verb), &concrete(path)).token(&token).send().await;
            let problem = answer.problem(401, "token-invalid");
            assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"), "{what}");
            assert!(token.is_empty() || !problem.to_string().contains(&token), "{what} is told back");
        }
        for header in ["", "Basic YTpi", "Bearer"] {
            app.call(method(verb), &concrete(path))
                .header("authorization", header)
                .send()
                .await
                .problem(401, "token-invalid");
        }
        let twice = app.call(method(verb), &concrete(path)).role(Role::Admin).role(Role::Admin).send().await;
        twice.problem(401, "token-invalid");
    }
}

#[tokio::test]
async fn another_role_gives_no_access() {
    let app = TestApp::with().with_runners().build().await;
    for (verb, path, roles) in ROUTES.iter().filter(|(_, _, roles)| !roles.is_empty()) {
        for role in Role::ALL {
            let response = app.call(method(verb), &concrete(path)).role(*role).open().await;
            if roles.contains(role) {
                assert!(![401, 403].contains(&response.status().as_u16()), "{role} at {path}: {}", response.status());
            } else {
                assert_eq!(response.status(), 403, "{role} at {path}");
            }
        }
        let all_others: Vec<Role> = Role::ALL.iter().copied().filter(|role| !roles.contains(role)).collect();
        app.call(method(verb), &concrete(path)).token(&token(&all_others)).send().await.problem(403, "role-missing");
    }
}

#[tokio::test]
async fn a_query_pool_with_more_rights_is_refused() {
    let app = TestApp::new().await;
    for role in ["fanledger_command", "fanledger_projector", "fanledger_operator", "fanledger_finance", "postgres"] {
        let url = if role == "postgres" { app.database.url().to_owned() } else { app.database.url_for(role) };
        let pool = fanledger_journal::database::connect(&url, 1).await.unwrap();
        let parts = Parts {
            config: app.state.config().clone(),
            query_pool: pool.clone(),
            command_pool: pool,
            intake: app.intake.clone(),
            operators: app.operators.clone(),
            desks: app.desks.clone(),
            schema_version: 1,
            probes: Vec::new(),
        };
        assert!(matches!(GatewayState::new(parts).await, Err(StateError::TooMuch { .. })), "{role}");
    }
}

#[tokio::test]
async fn the_pools_roles_may_do_what_is_listed_and_nothing_else() {
    let app = TestApp::with().with_runners().build().await;
    let functions = "SELECT n.nspname || '.' || p.proname FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE n.nspname IN ('journal', 'vault', 'control', 'read', 'public') AND has_function_privilege(p.oid, 'EXECUTE')
          AND has_schema_privilege(n.oid, 'USAGE') ORDER BY 1";
    // Every relation of ours on which the role has any right, with the rights.
    let relations = "SELECT n.nspname || '.' || c.relname || ' ' || string_agg(r.name, ',' ORDER BY r.name)
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')) AS r (name)
        WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
          AND has_table_privilege(c.oid, r.name) GROUP BY n.nspname, c.relname ORDER BY n.nspname, c.relname";
    let list = async |pool: &sqlx::PgPool, query: &str| -> Vec<String> {
        sqlx::query_scalar(query).fetch_all(pool).await.unwrap()
    };

    assert_eq!(list(&app.query_pool, functions).await, Vec::<String>::new());
    let may_read = list(&app.query_pool, relations).await;
    assert!(!may_read.is_empty());
    assert!(may_read.iter().all(|right| right.starts_with("read.") && right.ends_with(" SELECT")), "{may_read:?}");

    let in_control: Vec<String> =
        list(&app.command_pool, functions).await.into_iter().filter(|name| name.starts_with("control.")).collect();
    let listed = [
        "http_answer",
        "http_claim",
        "http_forget",
        "http_release",
        "pause",
        "request_operation",
        "resume",
        "schema_version",
    ];
    assert_eq!(in_control, listed.map(|name| format!("control.{name}")));
    let reads =
        ["journal.batches SELECT", "journal.entry_ids SELECT", "journal.events SELECT", "journal.identity SELECT"];
    assert_eq!(list(&app.command_pool, relations).await, reads);
}
