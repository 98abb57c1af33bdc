//! The web app's files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use axum::http::Method;
use common::TestApp;
use fanledger_gateway::Role;

const PAGE: &str = "<!doctype html><title>the app</title>";
const SCRIPT: &str = "export const answer = 42;";

/// A directory as the build writes it; the compressed forms are marked, so that a test sees which was served.
fn built(directory: &Path) {
    let assets = directory.join("assets");
    std::fs::create_dir_all(&assets).unwrap();
    std::fs::write(directory.join("index.html"), PAGE).unwrap();
    std::fs::write(directory.join(".built-from"), "a digest").unwrap();
    std::fs::write(assets.join("app-0123456789abcdef.js"), SCRIPT).unwrap();
    std::fs::write(assets.join("app-0123456789abcdef.js.br"), "as brotli").unwrap();
    std::fs::write(assets.join("app-0123456789abcdef.js.gz"), "as gzip").unwrap();
    std::fs::write(assets.join("app-0123456789abcdef.wasm"), b"\0asm").unwrap();
}

async fn app(directory: &Path) -> TestApp {
    let directory = directory.to_owned();
    TestApp::with().config(move |config| config.web_dir = Some(directory)).build().await
}

#[tokio::test]
async fn each_page_is_the_app_and_is_asked_for_again_each_time() {
    let directory = tempfile::tempdir().unwrap();
    built(directory.path());
    let app = app(directory.path()).await;
    for path in
        ["/", "/sign-in", "/ledger/trial-balance", "/ledger/entries/ch_1:1:20260101T000000Z", "/ops/projections"]
    {
        let answer = app.get(path).send().await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, PAGE.as_bytes()), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/html"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(
            policy.contains("script-src 'self' 'wasm-unsafe-eval'") && policy.contains("style-src 'self'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe-inline") && !policy.contains("'unsafe-eval'"), "{policy}");
        for (header, value) in
            [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("x-frame-options", "DENY")]
        {
            assert_eq!(answer.header(header), Some(value), "{path}");
        }
    }
}

#[tokio::test]
async fn files_are_kept_for_ever_and_come_compressed_to_whoever_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    built(directory.path());
    let app = app(directory.path()).await;
    let script = "/assets/app-0123456789abcdef.js";
    for (takes, encoding, body) in
        [("br, gzip", Some("br"), "as brotli"), ("gzip", Some("gzip"), "as gzip"), ("identity", None, SCRIPT)]
    {
        let answer = app.get(script).header("accept-encoding", takes).send().await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, body.as_bytes()), "{takes}");
        assert_eq!(answer.header("content-encoding"), encoding);
        assert_eq!(answer.header("content-type"), Some("text/javascript"));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"));
    }
    // A browser compiles a module while it comes only with this type.
    let module = app.get("/assets/app-0123456789abcdef.wasm").send().await;
    assert_eq!(module.header("content-type"), Some("application/wasm"));
}

#[tokio::test]
async fn what_is_no_page_and_no_file_is_a_problem_as_before() {
    let directory = tempfile::tempdir().unwrap();
    built(directory.path());
    let app = app(directory.path()).await;
    for path in [
        "/assets/none.js",
        "/assets/..%2findex.html",
        "/assets/%2e%2e/.built-from",
        "/.built-from",
        "/index.html",
        "/api/v1/nothing",
        "/webhooks/nothing",
        "/sign-in/further",
        "/nothing",
    ] {
        let answer = app.get(path).send().await;
        answer.problem(404, "not-found");
        assert_ne!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"), "{path}");
    }
    app.call(Method::POST, "/ledger/trial-balance").send().await.problem(405, "method-not-allowed");
    app.call(Method::POST, "/assets/app-0123456789abcdef.js").send().await.problem(405, "method-not-allowed");
    // Beside it everything is where it was.
    assert_eq!(app.get("/healthz").send().await.status.as_u16(), 200);
    assert_eq!(app.get("/docs").send().await.status.as_u16(), 200);
    app.get("/api/v1/ledger/trial-balance").send().await.problem(401, "token-missing");
    app.get("/api/v1/ledger/trial-balance").role(Role::Fan).send().await.problem(403, "role-missing");
}

#[tokio::test]
async fn an_app_that_was_not_built_says_how_and_appears_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(directory.path()).await;
    let answer = app.get("/").send().await;
    assert_eq!(answer.status.as_u16(), 404);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(String::from_utf8_lossy(&answer.body).contains("make web"));
    built(directory.path());
    assert_eq!(app.get("/").send().await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_gateway_without_the_app_has_no_pages() {
    let app = TestApp::new().await;
    app.get("/").send().await.problem(404, "not-found");
    app.get("/ledger/trial-balance").send().await.problem(404, "not-found");
}
