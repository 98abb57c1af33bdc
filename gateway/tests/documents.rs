//! What the gateway says about itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::TestApp;
use fanledger_gateway::openapi;
use serde_json::Value;

#[test]
fn the_openapi_document_is_the_committed_one() {
    insta::assert_snapshot!("openapi", serde_json::to_string_pretty(&openapi()).unwrap());
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
