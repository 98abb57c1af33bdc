//! What a POST says, field by field. What is wrong, missing or unknown is told all at once, and no value is told back.

use std::str::FromStr;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use fanledger_domain::reason::{REASON_FORM, is_reason};
use serde_json::{Map, Value};

use crate::json::{TWICE, Unambiguous};
use crate::limits::{API_BYTES_MAX, read_body};
use crate::problem::{Kind, Problem};
use crate::state::Commands;

/// So many faults are told; a body of nothing but faults would make an answer many times its own size.
const FAULTS_TOLD: usize = 50;

/// The fields of a JSON object. Each is taken once by its name; [`Fields::finish`] tells what is wrong.
pub(crate) struct Fields {
    given: Map<String, Value>,
    faults: Vec<(String, String)>,
}

impl FromRequest<Commands> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, commands: &Commands) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let given = fields(commands, &parts.headers, body).await?;
        Ok(Self { given, faults: Vec::new() })
    }
}

/// These commands say everything in their path: a body that somebody meant something by is refused, not dropped. Clients
/// that always send an empty JSON object may.
pub(crate) async fn no_content(commands: &Commands, headers: &HeaderMap, body: Body) -> Result<(), Problem> {
    if fields(commands, headers, body).await?.is_empty() {
        return Ok(());
    }
    Err(Problem::new(Kind::ParametersInvalid, "See errors for each field.").with_error("body", "expected no fields"))
}

/// The fields of a JSON object; none where there is no body.
pub(crate) async fn fields(
    commands: &Commands,
    headers: &HeaderMap,
    body: Body,
) -> Result<Map<String, Value>, Problem> {
    let body = read_body(headers, body, API_BYTES_MAX, commands.body_read_timeout).await?;
    if body.is_empty() {
        return Ok(Map::new());
    }
    let json = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !json.is_some_and(|value| {
        value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
    }) {
        return Err(Problem::new(Kind::MediaTypeUnsupported, "Send no body, or application/json."));
    }
    match serde_json::from_slice(&body) {
        Ok(Unambiguous(Value::Object(fields))) => Ok(fields),
        Err(error) if error.to_string().starts_with(TWICE) => {
            Err(Problem::new(Kind::RequestMalformed, "The body names one field twice."))
        }
        Ok(Unambiguous(_)) | Err(_) => Err(Problem::new(Kind::RequestMalformed, "The body is not a JSON object.")),
    }
}

impl Fields {
    /// A field that may be left out, or be null.
    pub(crate) fn optional<T>(&mut self, name: &str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        match self.given.remove(name) {
            None | Some(Value::Null) => None,
            Some(value) => parse(&value).map_err(|fault| self.fault(name, fault)).ok(),
        }
    }

    /// A field that must be there.
    pub(crate) fn required<T>(&mut self, name: &str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        if matches!(self.given.get(name), None | Some(Value::Null)) {
            self.given.remove(name);
            self.fault(name, "is missing".to_owned());
            return None;
        }
        self.optional(name, parse)
    }

    /// A list of objects that must be there, each read by `item`.
    pub(crate) fn list<T>(&mut self, name: &str, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let items = self.required(name, |value| match value {
            Value::Array(items) => Ok(items.clone()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                Err("expected a list".to_owned())
            }
        })?;
        let read = |(index, value): (usize, Value)| {
            let place = format!("{name}[{index}]");
            let Value::Object(given) = value else {
                self.fault(&place, "expected an object".to_owned());
                return None;
            };
            let mut fields = Self { given, faults: Vec::new() };
            let read = item(&mut fields);
            fields.unknown();
            self.faults.extend(fields.faults.into_iter().map(|(field, fault)| (format!("{place}.{field}"), fault)));
            read
        };
        // All of them are read before one decides.
        let read: Vec<Option<T>> = items.into_iter().enumerate().map(read).collect();
        read.into_iter().collect()
    }

    fn fault(&mut self, field: &str, message: String) {
        self.faults.push((field.to_owned(), message));
    }

    fn unknown(&mut self) {
        for name in std::mem::take(&mut self.given).into_iter().map(|(name, _)| name) {
            // A name is the client's own text: it is told back only where it can be one.
            let plain = (1..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            self.fault(if plain { &name } else { "body" }, "no such field here".to_owned());
        }
    }

    /// Everything was taken: `read`, or what is wrong.
    pub(crate) fn finish<T>(mut self, read: Option<T>) -> Result<T, Problem> {
        self.unknown();
        match read {
            Some(read) if self.faults.is_empty() => Ok(read),
            Some(_) | None => Err(invalid(self.faults)),
        }
    }
}

/// The problem with fields, one message each.
pub(crate) fn invalid(faults: impl IntoIterator<Item = (String, String)>) -> Problem {
    let mut faults = faults.into_iter();
    let problem = Problem::new(Kind::ParametersInvalid, "See errors for each field.");
    let told = faults.by_ref().take(FAULTS_TOLD);
    let problem = told.fold(problem, |problem, (field, message)| problem.with_error(&field, message));
    match faults.count() {
        0 => problem,
        untold => problem.with_error("body", format!("{untold} more faults are not told")),
    }
}

/// A text.
pub(crate) fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| "expected a text".to_owned())
}

/// A text that is one of ours, by its `FromStr`.
pub(crate) fn parsed<T: FromStr<Err: ToString>>(value: &Value) -> Result<T, String> {
    text(value)?.parse().map_err(|error: T::Err| error.to_string())
}

/// Why something is done.
pub(crate) fn reason(value: &Value) -> Result<String, String> {
    let reason = text(value)?;
    let reason = reason.trim();
    if is_reason(reason) { Ok(reason.to_owned()) } else { Err(format!("expected why, {REASON_FORM}")) }
}

/// The digits of an amount of minor units: a text, or an integer for clients that need no more than JSON's numbers hold.
pub(crate) fn digits(value: &Value) -> Result<String, String> {
    match value {
        Value::String(digits) => Ok(digits.clone()),
        Value::Number(number) if number.is_i64() => Ok(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err("expected whole minor units, as a string of digits".to_owned())
        }
    }
}
