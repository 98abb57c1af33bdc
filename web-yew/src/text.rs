//! How amounts, times and counts are written. Pure.

use fanledger_domain::money::Currency;

/// Digits in groups of three, as `fr` and `en` both read them: `1,234,567`.
pub fn grouped(digits: &str) -> String {
    let mut written = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            written.push(',');
        }
        written.push(digit);
    }
    written
}

/// A count.
pub fn count(n: u64) -> String {
    grouped(&n.to_string())
}

/// `1 event`, `2 events`.
pub fn counted(n: u64, one: &str) -> String {
    format!("{} {one}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `1 entry`, `2 entries`.
pub fn counted_entries(n: u64) -> String {
    if n == 1 { "1 entry".to_owned() } else { format!("{} entries", count(n)) }
}

/// An amount with its currency's decimals; as minor units, and said so, where the currency is unknown. Exact at any size.
pub fn amount(minor: i128, currency: &str) -> String {
    let Ok(known) = currency.parse::<Currency>() else { return format!("{minor} (minor units)") };
    let decimals = known.exponent() as usize;
    let sign = if minor < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", minor.unsigned_abs(), width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    let point = if decimals == 0 { "" } else { "." };
    format!("{sign}{}{point}{fraction}", grouped(whole))
}

/// A currency's code as people write it.
pub fn code(currency: &str) -> String {
    // ASCII, as is all that is changed so: Unicode's tables would be fetched by everybody.
    currency.to_ascii_uppercase()
}

/// An instant as the API writes it (`2026-06-05T23:02:36.123456Z`), to the second and without the letters: `2026-06-05 23:02:36`.
pub fn instant(rfc3339: &str) -> String {
    match (rfc3339.get(..10), rfc3339.get(11..19)) {
        (Some(date), Some(time)) if rfc3339.is_ascii() => format!("{date} {time}"),
        _ => rfc3339.to_owned(),
    }
}

/// The month so many months after one, `2026-12` after `2026-11`; none where that is no month.
pub fn month_after(month: &str, months: i32) -> Option<String> {
    let (year, number) = month.split_once('-').filter(|_| month.len() == 7)?;
    let since_0 = year.parse::<i32>().ok()? * 12 + number.parse::<i32>().ok()? - 1 + months;
    Some(format!("{:04}-{:02}", since_0.div_euclid(12), since_0.rem_euclid(12) + 1))
}

/// A lag or a time left, in seconds, as people say it: `0.4 s`, `12 s`, `3 min`, `2 h`.
#[expect(clippy::float_arithmetic, reason = "a time to be looked at, far from money")]
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.05 => "0 s".to_owned(),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3600.0),
    }
}

/// `catching_up` as people read it: `catching up`.
pub fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// `catching up` at the beginning of a sentence.
pub fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}", first.to_ascii_uppercase(), letters.as_str()))
}

/// JSON with a line for each member. Only white space between its tokens changes: numbers, the order of keys and escapes stay as
/// they were received.
pub fn indented(json: &str) -> String {
    let mut written = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut letters = json.chars().peekable();
    let line = |written: &mut String, depth: usize| {
        written.push('\n');
        written.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(letter) = letters.next() {
        if in_string {
            written.push(letter);
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        match letter {
            '"' => {
                in_string = true;
                written.push(letter);
            }
            '{' | '[' => {
                written.push(letter);
                while letters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if letters.peek().is_some_and(|next| !matches!(next, '}' | ']')) {
                    depth += 1;
                    line(&mut written, depth);
                } else {
                    written.extend(letters.next());
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut written, depth);
                written.push(letter);
            }
            ',' => {
                written.push(letter);
                line(&mut written, depth);
            }
            ':' => written.push_str(": "),
            space if space.is_ascii_whitespace() => {}
            other => written.push(other),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use fanledger_domain::money::Money;

    use super::*;

    #[test]
    fn amounts_are_the_domains_with_groups() {
        for currency in ["usd", "jpy", "kwd"] {
            for minor in [0, 1, -1, 9, 10, 99, 100, -100, 999, 1_000, 12_340, -123_456_789, i64::MAX, i64::MIN] {
                let domains = Money::new(minor, currency.parse().unwrap()).to_string();
                let ours = format!("{} {currency}", amount(minor.into(), currency));
                assert_eq!(ours.replace(',', ""), domains);
            }
        }
        assert_eq!(amount(-123_456_789, "usd"), "-1,234,567.89");
        assert_eq!(amount(123_456, "jpy"), "123,456");
        assert_eq!(amount(i128::MAX, "kwd"), "170,141,183,460,469,231,731,687,303,715,884,105.727");
        assert_eq!(amount(5, "xxx"), "5 (minor units)");
    }

    #[test]
    fn instants_are_shown_to_the_second() {
        assert_eq!(instant("2026-06-05T23:02:36Z"), "2026-06-05 23:02:36");
        assert_eq!(instant("2026-06-05T23:02:36.123456Z"), "2026-06-05 23:02:36");
        assert_eq!(instant("soon"), "soon");
        assert_eq!(instant("2026-06-05T23:02:3é"), "2026-06-05T23:02:3é");
    }

    #[test]
    fn counts_and_times_read_well() {
        assert_eq!(
            (counted(1, "event"), counted(1_234_567, "event")),
            ("1 event".to_owned(), "1,234,567 events".to_owned())
        );
        assert_eq!((counted_entries(1), counted_entries(2)), ("1 entry".to_owned(), "2 entries".to_owned()));
        let said = [0.0, 0.44, 9.0, 42.0, 300.0, 9000.0].map(seconds);
        assert_eq!(said, ["0 s", "0.4 s", "9.0 s", "42 s", "5 min", "2 h"]);
        assert_eq!(sentence(&words("catching_up")), "Catching up");
    }

    #[test]
    fn months_follow_one_another() {
        assert_eq!(month_after("2026-11", 1).as_deref(), Some("2026-12"));
        assert_eq!(month_after("2026-12", 1).as_deref(), Some("2027-01"));
        assert_eq!(month_after("2026-01", -1).as_deref(), Some("2025-12"));
        for other in ["", "2026", "2026-1", "26-10-10", "2026-1x"] {
            assert_eq!(month_after(other, 1), None, "{other}");
        }
    }

    #[test]
    fn json_is_indented_and_otherwise_left_alone() {
        let json = r#"{"a":1.10,"b":[],"c":{ },"d":["x, \"{y}\" \\",{"e":null}],"a":1e2}"#;
        let expected = "{\n  \"a\": 1.10,\n  \"b\": [],\n  \"c\": {},\n  \"d\": [\n    \"x, \\\"{y}\\\" \\\\\",\n    {\n      \"e\": null\n    }\n  ],\n  \"a\": 1e2\n}";
        assert_eq!(indented(json), expected);
        assert_eq!(indented(expected), expected);
    }
}
