//! Typed reads of one JSON object, each of which names the field that it could not read and never the value that it found there:
//! a value may be anybody's personal data, and the sentence ends in the journal.

use serde_json::{Map, Value};

use crate::id::StripeId;
use crate::money::Currency;
use crate::time::Timestamp;

/// The most that one posting may move, 2^53 − 1: what every JSON reader holds exactly.
pub const AMOUNT_MAX: i64 = (1 << 53) - 1;

/// Which field could not be read, and why. Names fields and forms, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Unreadable {
    /// The path from the object that was read: `balance_transactions[0].net`.
    pub field: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A JSON object and where it stands.
pub(super) struct Object<'a> {
    fields: &'a Map<String, Value>,
    path: String,
}

impl<'a> Object<'a> {
    /// `value` as an object at `path`, which is empty for the outermost.
    pub(super) fn new(value: &'a Value, path: String) -> Result<Self, Unreadable> {
        match value.as_object() {
            Some(fields) => Ok(Self { fields, path }),
            None => Err(Unreadable {
                field: if path.is_empty() { "the object".to_owned() } else { path },
                problem: "is not an object",
            }),
        }
    }

    fn field(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// An error about the field `key`.
    pub(super) fn refuse(&self, key: &str, problem: &'static str) -> Unreadable {
        Unreadable { field: self.field(key), problem }
    }

    /// What stands at `key`; an absent field and a null are the same to us, as they are to Stripe.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// Turns an absent field into an error.
    pub(super) fn require<T>(&self, key: &str, value: Option<T>) -> Result<T, Unreadable> {
        value.ok_or_else(|| self.refuse(key, "is missing"))
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, Unreadable> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| self.refuse(key, "is not a text"))).transpose()
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Unreadable> {
        self.get(key)
            .map(|value| value.as_bool().ok_or_else(|| self.refuse(key, "is neither true nor false")))
            .transpose()
    }

    /// The object's own id.
    pub(super) fn id(&self) -> Result<StripeId, Unreadable> {
        let text = self.require("id", self.text("id")?)?;
        text.parse().map_err(|_| self.refuse("id", "is not an id of Stripe's"))
    }

    /// Another object's id: bare, or the id of an expanded object.
    pub(super) fn reference(&self, key: &str) -> Result<Option<StripeId>, Unreadable> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => match text.parse() {
                Ok(id) => Ok(Some(id)),
                Err(_) => Err(self.refuse(key, "is not an id of Stripe's")),
            },
            Some(expanded) => match expanded.get("id").and_then(Value::as_str).and_then(|text| text.parse().ok()) {
                Some(id) => Ok(Some(id)),
                None => Err(self.refuse(key, "is neither an id of Stripe's nor an object with one")),
            },
        }
    }

    /// An integer of at most 2^53 − 1 either way. `100.0` and `"100"` are not integers: whoever writes them so is not Stripe.
    pub(super) fn signed(&self, key: &str) -> Result<Option<i64>, Unreadable> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_i64() {
            Some(amount) if (-AMOUNT_MAX..=AMOUNT_MAX).contains(&amount) => Ok(Some(amount)),
            _ => Err(self.refuse(key, "is not a whole number of at most 2^53 - 1")),
        }
    }

    /// An integer from 0 to 2^53 − 1.
    pub(super) fn amount(&self, key: &str) -> Result<Option<i64>, Unreadable> {
        match self.signed(key)? {
            Some(amount) if amount < 0 => Err(self.refuse(key, "is negative")),
            amount => Ok(amount),
        }
    }

    /// An instant, in Unix seconds.
    pub(super) fn time(&self, key: &str) -> Result<Option<Timestamp>, Unreadable> {
        self.get(key)
            .map(|value| {
                let seconds = value.as_i64().and_then(|seconds| Timestamp::from_unix_seconds(seconds).ok());
                seconds.ok_or_else(|| self.refuse(key, "is not a time in Unix seconds"))
            })
            .transpose()
    }

    /// `created`, or `date` as transfers and payouts had it before 2015.
    pub(super) fn created(&self) -> Result<Timestamp, Unreadable> {
        match self.time("created")? {
            Some(created) => Ok(created),
            None => self.require("created", self.time("date")?),
        }
    }

    /// The object's currency.
    pub(super) fn currency(&self) -> Result<Currency, Unreadable> {
        let text = self.require("currency", self.text("currency")?)?;
        text.parse().map_err(|_| self.refuse("currency", "is not a currency that we know"))
    }

    /// A word out of a closed list.
    pub(super) fn word<T>(&self, key: &str, known: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Unreadable> {
        self.text(key)?
            .map(|text| known(text).ok_or_else(|| self.refuse(key, "is a word that we do not know")))
            .transpose()
    }

    /// An object within.
    pub(super) fn object(&self, key: &str) -> Result<Option<Object<'a>>, Unreadable> {
        self.get(key).map(|value| Object::new(value, self.field(key))).transpose()
    }

    /// The objects of a list, whether it stands as a plain array or as Stripe's `{"object": "list", "data": […]}`.
    pub(super) fn list(&self, key: &str) -> Result<Vec<Object<'a>>, Unreadable> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let items = value.as_array().or_else(|| value.get("data").and_then(Value::as_array));
        let items = items.ok_or_else(|| self.refuse(key, "is not a list"))?;
        let path = self.field(key);
        items.iter().enumerate().map(|(index, item)| Object::new(item, format!("{path}[{index}]"))).collect()
    }

    /// The texts of a list.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<&'a str>, Unreadable> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let texts: Option<Vec<&str>> = value.as_array().and_then(|items| items.iter().map(Value::as_str).collect());
        texts.ok_or_else(|| self.refuse(key, "is not a list of texts"))
    }

    /// Refuses an object whose `object` says that it is something else. Tolerates its absence.
    pub(super) fn expect_kind(&self, kind: &str) -> Result<(), Unreadable> {
        match self.get("object") {
            None => Ok(()),
            Some(value) if value.as_str() == Some(kind) => Ok(()),
            Some(_) => Err(self.refuse("object", "is not what events of this type are about")),
        }
    }
}
