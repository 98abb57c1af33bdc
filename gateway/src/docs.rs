//! The OpenAPI document's frame, what every guarded operation has in common, and `/docs`.
//!
//! The page is written here, once, from the document itself: no script, nothing fetched from elsewhere, so it works offline
//! and under the strictest content security policy.

use std::collections::btree_map::Entry;
use std::fmt::Write as _;

use axum::body::Bytes;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, KnownFormat, LicenseBuilder, ObjectBuilder, OpenApi,
    OpenApiBuilder, Ref, RefOr, Required, ResponseBuilder, SchemaFormat, Type,
};
use utoipa::{PartialSchema, ToSchema};

use crate::auth::Role;
use crate::problem::Kind;

const BEARER: &str = "bearer";

const INTRODUCTION: &str = "The backend of a paid-membership platform: signed Stripe webhooks in, an event journal in the \
middle, balanced books out.

Everything that is read here is a projection of the journal. `Journal-Position` says which position an answer reflects; send \
it back as `Journal-Min-Position` to read your own writes. Amounts are integers of minor units in the currency's own \
exponent, as JSON strings; `balance_minor` is debits minus credits. Lists page by an opaque `cursor`, newest first unless \
they say otherwise. Errors are `application/problem+json` (RFC 9457) with a stable `type`.";

/// The document without its operations.
pub(crate) fn frame() -> OpenApi {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("HS256; `fanledger token mint --role <role>` makes one."))
        .build();
    let tags = [
        ("ledger", "The books, for finance."),
        ("finance", "What finance does: each act is remembered with who did it, when and why."),
        ("payouts", "Who is paid, and when: runs of transfers, and holds."),
        ("inbox", "Webhooks and what became of them."),
        ("operations", "Runners and the journal, for operators."),
        ("live", "Following along."),
        ("webhooks", "What Stripe calls."),
        ("health", "What a load balancer calls."),
    ];
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Fanledger")
                .version("1")
                .description(Some(INTRODUCTION))
                .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
                .build(),
        )
        .tags(Some(tags.map(|(name, description)| TagBuilder::new().name(name).description(Some(description)).build())))
        .components(Some(
            ComponentsBuilder::new()
                .schema(fanledger_gateway_api::Problem::name(), fanledger_gateway_api::Problem::schema())
                .schema(fanledger_gateway_api::FieldProblem::name(), fanledger_gateway_api::FieldProblem::schema())
                // Collected from no operation: it is the default of a type parameter.
                .schema(fanledger_gateway_api::Minor::name(), fanledger_gateway_api::Minor::schema())
                .security_scheme(BEARER, SecurityScheme::Http(scheme))
                .build(),
        ))
        .build()
}

fn header_parameter(name: &str, description: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema.build()))
        .build()
}

fn position() -> ObjectBuilder {
    let format = SchemaFormat::KnownFormat(KnownFormat::Int64);
    ObjectBuilder::new().schema_type(Type::Integer).format(Some(format)).minimum(Some(0_i64)).maximum(Some(i64::MAX))
}

/// Whatever is asked or done under `/api/v1`.
const PROBLEMS_OF_ALL: &[Kind] = &[
    Kind::TokenMissing,
    Kind::TokenInvalid,
    Kind::RoleMissing,
    Kind::ParametersInvalid,
    Kind::RateLimited,
    Kind::Internal,
    Kind::Overloaded,
    Kind::TimedOut,
    Kind::Unavailable,
];

/// Whatever has a body, and may have an `Idempotency-Key`.
const PROBLEMS_OF_ACTS: &[Kind] = &[
    Kind::RequestMalformed,
    Kind::RequestTimeout,
    Kind::IdempotencyInFlight,
    Kind::BodyTooLarge,
    Kind::MediaTypeUnsupported,
    Kind::IdempotencyKeyReused,
];

/// What an act alone may be refused for, as its desk and its handler refuse it, beside what all acts may be. Each problem that a
/// test of the gateway is answered with must be in the document, so what is left out here is found.
fn refusals(operation_id: &str) -> &'static [Kind] {
    match operation_id {
        "attribute_charge" | "attribute_transfer" | "attribute_application_fee" => {
            &[Kind::NotFound, Kind::LedgerRefused]
        }
        "propose_manual_entry" => &[Kind::LedgerRefused],
        "approve_manual_entry" => {
            &[Kind::NotFound, Kind::SecondPersonNeeded, Kind::AlreadyDecided, Kind::LedgerRefused]
        }
        "reject_manual_entry" => &[Kind::NotFound, Kind::AlreadyDecided],
        "reverse_entry" => &[Kind::NotFound, Kind::AlreadyReversed, Kind::NotByHand, Kind::LedgerRefused],
        "open_stripe_event" => &[Kind::NotFound, Kind::BodyErased, Kind::BodyKeyMissing],
        "close_period" => &[Kind::PeriodNotEnded, Kind::PeriodNotNext, Kind::PeriodClosedAlready],
        "reopen_period" => &[Kind::SecondPersonNeeded, Kind::PeriodNotLast],
        "propose_payout_run" => &[Kind::PayoutRunOpen, Kind::LedgerRefused, Kind::PositionNotReached],
        "approve_payout_run" => &[
            Kind::NotFound,
            Kind::SecondPersonNeeded,
            Kind::AlreadyDecided,
            Kind::LedgerRefused,
            Kind::PositionNotReached,
        ],
        "cancel_payout_run" => &[Kind::NotFound, Kind::AlreadyDecided],
        "hold_payouts" | "resume_payouts" => &[Kind::AlreadyDecided],
        "pause_projection" | "resume_projection" => &[Kind::NotFound],
        "rebuild_projection" | "verify_projection" | "retire_projection" => &[Kind::NotFound, Kind::OperationUnderWay],
        "roll_projection_back" => &[Kind::NotFound, Kind::OperationUnderWay, Kind::NothingKept],
        "skip_event" => &[Kind::NotFound, Kind::AlreadyApplied],
        _ => &[],
    }
}

/// Adds kinds of problem to what a handler says of its answers itself.
fn add_problems(operation: &mut Operation, kinds: &[Kind]) {
    for kind in kinds {
        let slug = format!("`{}`", kind.slug());
        match operation.responses.responses.entry(kind.status().as_str().to_owned()) {
            Entry::Vacant(vacant) => {
                let schema = Ref::from_schema_name(fanledger_gateway_api::Problem::name());
                let response = ResponseBuilder::new()
                    .description(slug)
                    .content("application/problem+json", ContentBuilder::new().schema(Some(schema)).build());
                vacant.insert(RefOr::T(response.build()));
            }
            Entry::Occupied(mut occupied) => {
                if let RefOr::T(response) = occupied.get_mut()
                    && !response.description.contains(&slug)
                {
                    // A handler may say in words what one is about.
                    let mark = if response.description.ends_with('`') { ',' } else { ';' };
                    response.description = format!("{}{mark} {slug}", response.description);
                }
            }
        }
    }
}

/// Writes down what holds for every operation of a guarded group: the roles, the headers, the refusals.
pub(crate) fn describe(document: &mut OpenApi, roles: &[Role]) {
    for item in document.paths.paths.values_mut() {
        if let Some(operation) = &mut item.get {
            describe_operation(operation, roles);
            // A stream tells positions as they come; there is none that it could wait for.
            if operation.operation_id.as_deref() != Some("stream") {
                let what = "Wait, at most 2 s, until the answer reflects at least this position";
                let parameter = header_parameter("Journal-Min-Position", what, position());
                operation.parameters.get_or_insert_default().push(RefOr::T(parameter));
                describe_position(operation, "The journal position that the answer reflects");
                add_problems(operation, &[Kind::PositionNotReached]);
            }
        }
        if let Some(operation) = &mut item.post {
            let what = "The same key and request again get the first answer again, where something was done; a refusal is judged anew. Kept seven days";
            let key = ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(255))
                .pattern(Some("^[!-~]+$"));
            let parameter = header_parameter("Idempotency-Key", what, key);
            operation.parameters.get_or_insert_default().push(RefOr::T(parameter));
            describe_position(operation, "The journal position that the command came to");
            let own = operation.operation_id.as_deref().map_or(&[][..], refusals);
            add_problems(operation, own);
            describe_operation(operation, roles);
            add_problems(operation, PROBLEMS_OF_ACTS);
        }
    }
}

fn describe_position(operation: &mut Operation, what: &str) {
    for status in ["200", "202"] {
        if let Some(RefOr::T(response)) = operation.responses.responses.get_mut(status) {
            let header = HeaderBuilder::new().schema(Some(position().build())).description(Some(what)).build();
            response.headers.insert("Journal-Position".to_owned(), RefOr::T(header));
        }
    }
}

fn describe_operation(operation: &mut Operation, roles: &[Role]) {
    operation.security = Some(vec![SecurityRequirement::new(BEARER, Vec::<String>::new())]);
    let names: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    operation
        .extensions
        .get_or_insert_with(|| ExtensionsBuilder::new().build())
        .insert("x-roles".to_owned(), json!(names));
    add_problems(operation, PROBLEMS_OF_ALL);
}

/// `/openapi.json`, ready to be sent.
#[derive(Clone)]
pub(crate) struct Document {
    json: Bytes,
}

impl Document {
    /// The document is ours and made of maps and texts: it serialises. An empty answer would be seen by the test.
    pub(crate) fn new(document: &OpenApi) -> Self {
        Self { json: serde_json::to_vec(document).unwrap_or_default().into() }
    }
}

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.json).into_response()
    }
}

/// `/docs`, ready to be sent.
#[derive(Clone)]
pub(crate) struct Page {
    html: Bytes,
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        // The style is the page's own; nothing else may load, and no script may run.
        let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
        ([(CONTENT_SECURITY_POLICY, policy)], Html(self.html)).into_response()
    }
}

const STYLE: &str = "
:root{color-scheme:light dark;--line:color-mix(in srgb,currentColor 18%,transparent);--soft:color-mix(in srgb,currentColor 6%,transparent);--accent:#0a7d55}
body{font:16px/1.55 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:2rem 1.25rem 6rem}
h1{margin:0;font-size:2rem}h2{margin:3rem 0 .5rem;border-bottom:1px solid var(--line)}p{margin:.5rem 0}
code,pre{font:.9em/1.5 ui-monospace,monospace}pre{background:var(--soft);padding:.75rem 1rem;overflow:auto;border-radius:.4rem}
details{border:1px solid var(--line);border-radius:.5rem;margin:.6rem 0;padding:0 1rem}details[open]{padding-bottom:1rem}
summary{cursor:pointer;padding:.65rem 0}summary code{font-weight:600}summary span{opacity:.75;margin-left:.6rem}
.method{display:inline-block;min-width:3.4rem;color:var(--accent);font:700 .85em ui-monospace,monospace}
.role{font-size:.85em;border:1px solid var(--line);border-radius:1rem;padding:.05rem .6rem;margin-right:.35rem}
table{border-collapse:collapse;width:100%;margin:.4rem 0}th,td{text-align:left;vertical-align:top;padding:.35rem .75rem .35rem 0;border-bottom:1px solid var(--line)}
nav a{margin-right:1rem}a{color:var(--accent)}h4{margin:1rem 0 .2rem}";

/// Writes `/docs` from the document.
pub(crate) fn page(document: &OpenApi) -> Page {
    // The document is ours and made of maps and texts: it serialises. An empty page would be seen by the test.
    let document = serde_json::to_value(document).unwrap_or_default();
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Fanledger API</title><style>{STYLE}</style></head><body><h1>Fanledger API</h1>"
    );
    for paragraph in text(&document["info"]["description"]).split("\n\n") {
        push(&mut html, format_args!("<p>{}</p>", prose(paragraph)));
    }
    html.push_str(
        "<p>The same as a machine reads it: <a href=\"/openapi.json\">/openapi.json</a> (OpenAPI 3.1).</p><h4>Sign in</h4><pre>\
         TOKEN=$(fanledger token mint --role finance)\n\
         curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:8080/api/v1/ledger/trial-balance</pre><nav>",
    );
    let tags = document["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    for tag in tags {
        push(&mut html, format_args!("<a href=\"#{0}\">{0}</a>", escape(text(&tag["name"]))));
    }
    html.push_str("<a href=\"#types\">types</a><a href=\"#problems\">problems</a></nav>");
    for tag in tags {
        let name = text(&tag["name"]);
        push(
            &mut html,
            format_args!("<h2 id=\"{0}\">{0}</h2><p>{1}</p>", escape(name), prose(text(&tag["description"]))),
        );
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                if operation["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == name)) {
                    push_operation(&mut html, path, method, operation);
                }
            }
        }
    }
    html.push_str("<h2 id=\"types\">types</h2>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        push_type(&mut html, name, schema);
    }
    html.push_str("<h2 id=\"problems\">problems</h2><table><tr><th>type</th><th>status</th><th>title</th></tr>");
    for kind in Kind::ALL {
        push(
            &mut html,
            format_args!(
                "<tr id=\"{}\"><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
                kind.slug(),
                kind.uri(),
                kind.status().as_u16(),
                escape(kind.title())
            ),
        );
    }
    html.push_str("</table></body></html>");
    Page { html: html.into() }
}

fn push(html: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = html.write_fmt(arguments);
}

fn push_operation(html: &mut String, path: &str, method: &str, operation: &Value) {
    let (summary, id) = (text(&operation["summary"]), text(&operation["operationId"]));
    push(
        html,
        format_args!(
            "<details id=\"{}\"><summary><span class=\"method\">{}</span><code>{}</code><span>{}</span></summary>",
            escape(id),
            escape(&method.to_uppercase()),
            escape(path),
            prose(summary)
        ),
    );
    for paragraph in text(&operation["description"]).split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        push(html, format_args!("<p>{}</p>", prose(paragraph)));
    }
    let roles = operation["x-roles"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !roles.is_empty() {
        html.push_str("<p>");
        roles.iter().for_each(|role| push(html, format_args!("<span class=\"role\">{}</span>", escape(text(role)))));
        html.push_str("</p>");
    }
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        html.push_str("<h4>Parameters</h4><table>");
        for parameter in parameters {
            let required = if parameter["required"] == true { ", required" } else { "" };
            push(
                html,
                format_args!(
                    "<tr><td><code>{}</code></td><td>{}{required}</td><td>{}</td></tr>",
                    escape(text(&parameter["name"])),
                    escape(text(&parameter["in"])),
                    prose(text(&parameter["description"]))
                ),
            );
        }
        html.push_str("</table>");
    }
    html.push_str("<h4>Answers</h4><table>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let contents = response["content"].as_object();
        let kind = contents.and_then(|contents| contents.values().next()).map(|content| type_of(&content["schema"]));
        push(
            html,
            format_args!(
                "<tr><td><code>{status}</code></td><td>{}</td><td>{}</td></tr>",
                kind.unwrap_or_default(),
                prose(text(&response["description"]))
            ),
        );
    }
    html.push_str("</table></details>");
}

fn push_type(html: &mut String, name: &str, schema: &Value) {
    push(
        html,
        format_args!(
            "<details id=\"type-{0}\"><summary><code>{0}</code><span>{1}</span></summary>",
            escape(name),
            prose(text(&schema["description"]))
        ),
    );
    html.push_str("<table>");
    for (field, property) in schema["properties"].as_object().into_iter().flatten() {
        push(
            html,
            format_args!(
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
                escape(field),
                type_of(property),
                prose(text(&property["description"]))
            ),
        );
    }
    for variant in schema["enum"].as_array().into_iter().flatten() {
        push(html, format_args!("<tr><td><code>{}</code></td><td></td><td></td></tr>", escape(text(variant))));
    }
    html.push_str("</table></details>");
}

/// A schema in a word, linked where it has a name.
fn type_of(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = escape(reference.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#type-{name}\">{name}</a>");
    }
    if schema["items"].is_object() {
        return format!("list of {}", type_of(&schema["items"]));
    }
    if let Some(some) = schema["oneOf"].as_array() {
        return some.iter().map(type_of).collect::<Vec<_>>().join(" or ");
    }
    match &schema["type"] {
        Value::String(name) => escape(name),
        Value::Array(names) => names.iter().map(|name| escape(text(name))).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Text with `code` in it.
fn prose(text: &str) -> String {
    let parts: Vec<String> = text.split('`').map(escape).collect();
    let mut html = String::new();
    for (index, part) in parts.iter().enumerate() {
        if index % 2 == 1 && index + 1 < parts.len() {
            push(&mut html, format_args!("<code>{part}</code>"));
        } else {
            html.push_str(part);
        }
    }
    html
}
