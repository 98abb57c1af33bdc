//! As of when, by which time and in which currency a page of the books is asked: the part of its address after `?`, and of
//! the API's.

use serde::{Deserialize, Serialize};

/// Which of an entry's times counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// When it counts in the books.
    Effective,
    /// When it happened.
    Occurred,
    /// When the journal recorded it.
    Recorded,
}

impl Axis {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Effective, Self::Occurred, Self::Recorded];

    /// In an address.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Effective => "effective",
            Self::Occurred => "occurred",
            Self::Recorded => "recorded",
        }
    }

    /// Above a column of such times.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Effective => "Effective",
            Self::Occurred => "Occurred",
            Self::Recorded => "Recorded",
        }
    }
}

/// What is after `?`. As written by whoever made the link: the gateway judges it, and says what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// An instant (RFC 3339) or a position; the newest where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
    /// A closed month, `2026-10`, as its close fixed it; of a creator's statement any month. It stands without the two others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
    /// `effective` where absent, `occurred` or `recorded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// One currency; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// A line of a creator's statement: the entries behind it are shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// Of that line only what was paid for this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The entry that the reader comes from. For the page alone: the API is never asked with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl View {
    /// Whether it shows the newest there is, so that it changes as the books do.
    pub fn is_live(&self) -> bool {
        self.as_of.is_none() && self.period.is_none()
    }

    /// A month, and nothing else.
    pub fn of_month(month: Option<String>) -> Self {
        Self { period: month, ..Self::default() }
    }

    /// The axis that `by` names; none where it names none, which the gateway refuses.
    pub fn axis(&self) -> Option<Axis> {
        match self.by.as_deref() {
            None => Some(Axis::Effective),
            Some(by) => Axis::ALL.into_iter().find(|axis| axis.as_str() == by),
        }
    }

    /// With another currency.
    pub fn in_currency(&self, currency: &str) -> Self {
        Self { currency: Some(currency.to_owned()), ..self.clone() }
    }

    /// In all currencies.
    pub fn in_all_currencies(&self) -> Self {
        Self { currency: None, ..self.clone() }
    }

    /// A path of the API with this as its query.
    pub fn asked_at(&self, path: &str) -> String {
        Self { from: None, ..self.clone() }.linked_at(path)
    }

    /// A page's path with this as its query.
    pub fn linked_at(&self, path: &str) -> String {
        match serde_urlencoded::to_string(self) {
            Ok(query) if !query.is_empty() => format!("{path}?{query}"),
            Ok(_) | Err(_) => path.to_owned(),
        }
    }

    /// In words, for the page's heading.
    pub fn in_words(&self) -> String {
        if let Some(period) = &self.period {
            return format!("as {period} was closed, by effective date");
        }
        let by = match self.axis() {
            Some(Axis::Effective) => "by effective date",
            Some(Axis::Occurred) => "by date of occurrence",
            Some(Axis::Recorded) => "by date of recording",
            None => "by a date that there is not",
        };
        match self.as_of.as_deref() {
            None => format!("as of now, {by}"),
            Some(position) if position.bytes().all(|b| b.is_ascii_digit()) => {
                format!("as of journal position {}, {by}", crate::text::grouped(position))
            }
            Some(instant) => format!("as of {} UTC, {by}", crate::text::instant(instant)),
        }
    }
}

/// An instant from a `datetime-local` field, whose text has no zone and mostly no seconds. It is taken as UTC, and to the end of
/// the second or minute that it names, since as-of is inclusive.
pub fn instant_of_field(text: &str) -> Option<String> {
    let text = text.trim();
    match text.len() {
        16 => Some(format!("{text}:59.999999Z")),
        19 => Some(format!("{text}.999999Z")),
        _ => None,
    }
}

/// What such a field shows for an instant.
pub fn field_of_instant(rfc3339: &str) -> String {
    rfc3339.get(..16).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_the_apis_query() {
        assert_eq!(View::default().asked_at("/a"), "/a");
        let view = View {
            as_of: Some("2026-07-01T00:00:00+02:00".to_owned()),
            by: Some("occurred".to_owned()),
            currency: Some("kwd".to_owned()),
            from: Some("ch_1:1".to_owned()),
            ..View::default()
        };
        assert_eq!(view.asked_at("/a"), "/a?as_of=2026-07-01T00%3A00%3A00%2B02%3A00&by=occurred&currency=kwd");
        assert_eq!(View { from: Some("ch_1:1".to_owned()), ..View::default() }.linked_at("/a"), "/a?from=ch_1%3A1");
        let read: View = serde_urlencoded::from_str("by=occurred&as_of=17").unwrap();
        assert_eq!(read, View { as_of: Some("17".to_owned()), by: Some("occurred".to_owned()), ..View::default() });
        assert!(!read.is_live() && View::default().is_live());
        let month = View { line: Some("refunds".to_owned()), ..View::of_month(Some("2026-10".to_owned())) };
        assert_eq!(month.asked_at("/a"), "/a?period=2026-10&line=refunds");
        assert!(!month.is_live());
    }

    #[test]
    fn a_view_is_said_in_words() {
        let view = |as_of: Option<&str>, by: Option<&str>| View {
            as_of: as_of.map(str::to_owned),
            by: by.map(str::to_owned),
            ..View::default()
        };
        assert_eq!(view(None, None).in_words(), "as of now, by effective date");
        assert_eq!(
            view(Some("21317"), Some("recorded")).in_words(),
            "as of journal position 21,317, by date of recording"
        );
        let month = View::of_month(Some("2026-10".to_owned()));
        assert_eq!(month.in_words(), "as 2026-10 was closed, by effective date");
        let instant = view(Some("2026-07-01T00:00:00Z"), Some("occurred"));
        assert_eq!(instant.in_words(), "as of 2026-07-01 00:00:00 UTC, by date of occurrence");
    }

    #[test]
    fn a_field_names_a_whole_minute() {
        assert_eq!(instant_of_field("2026-06-30T23:59").as_deref(), Some("2026-06-30T23:59:59.999999Z"));
        assert_eq!(instant_of_field("2026-06-30T23:59:30").as_deref(), Some("2026-06-30T23:59:30.999999Z"));
        assert_eq!(instant_of_field("2026-06-30"), None);
        assert_eq!(field_of_instant("2026-06-30T23:59:59.999999Z"), "2026-06-30T23:59");
    }
}
