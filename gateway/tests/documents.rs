//! What the gateway says about itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{DOCUMENT, TestApp, problems};
use fanledger_gateway::openapi;
use fanledger_gateway::problem::Kind;
use serde_json::Value;

#[test]
fn the_openapi_document_is_the_committed_one() {
    insta::assert_snapshot!("openapi", serde_json::to_string_pretty(&openapi()).unwrap());
}

/// What any of them can answer, whatever else a route says of itself.
#[test]
fn each_operation_names_the_problems_that_all_have() {
    use Kind::*;
    let all = [
        TokenMissing,
        TokenInvalid,
        RoleMissing,
        ParametersInvalid,
        RateLimited,
        Internal,
        Overloaded,
        TimedOut,
        Unavailable,
    ];
    let of_questions = [PositionNotReached];
    let of_acts = [
        RequestMalformed,
        RequestTimeout,
        BodyTooLarge,
        MediaTypeUnsupported,
        IdempotencyInFlight,
        IdempotencyKeyReused,
    ];
    let (mut acts, mut questions) = (0, 0);
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|_| path.starts_with("/api/v1/")) {
            let own = match method.as_str() {
                "get" => {
                    questions += 1;
                    &of_questions[..]
                }
                "post" => {
                    acts += 1;
                    &of_acts[..]
                }
                other => panic!("{other} {path}: what may it answer?"),
            };
            // There is no position that a stream could wait for.
            let own = if path.ends_with("/stream") { &[] } else { own };
            for kind in all.iter().chain(own) {
                let named = problems(operation, kind.status().as_str());
                assert!(named.contains(&kind.slug()), "{method} {path} lacks {}: {named:?}", kind.slug());
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                if response["content"]["application/problem+json"].is_null() {
                    assert!(status.starts_with('2'), "{method} {path}: {status} is no problem document");
                    continue;
                }
                let named = problems(operation, status);
                assert!(!named.is_empty(), "{method} {path}: {status}");
                for slug in named {
                    let kind = Kind::ALL.iter().find(|kind| kind.slug() == slug);
                    assert_eq!(
                        kind.map(|kind| kind.status().to_string()[..3].to_owned()).as_ref(),
                        Some(status),
                        "{slug}"
                    );
                }
            }
        }
    }
    assert!(acts > 20 && questions > 20, "{acts} acts, {questions} questions");
}

#[tokio::test]
async fn the_served_document_is_the_same_and_names_each_type_that_it_refers_to() {
    let app = TestApp::new().await;
    let answer = app.get("/openapi.json").send().await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json(), serde_json::to_value(openapi()).unwrap());
    assert_eq!(answer.json()["openapi"], "3.1.0");
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    found.push(reference.clone());
                }
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = Vec::new();
    references(&answer.json(), &mut found);
    assert!(!found.is_empty());
    for reference in found {
        assert!(answer.json().pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
}

#[tokio::test]
async fn the_docs_page_needs_nothing_from_elsewhere() {
    let app = TestApp::new().await;
    let answer = app.get("/docs").send().await;
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let page = String::from_utf8(answer.body.to_vec()).unwrap();
    let document = serde_json::to_value(openapi()).unwrap();
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("<code>{path}</code>")), "{path} is not on the page");
    }
    for schema in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("id=\"type-{schema}\"")), "{schema} is not on the page");
    }
    for foreign in ["<script", "src=", "url(", "@import", "https://", "<link"] {
        assert!(!page.contains(foreign), "{foreign} on the page");
    }
    // Every link leads to a place on the page.
    for target in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(page.contains(&format!("id=\"{target}\"")), "#{target} leads nowhere");
    }
}
