//! Finds an event's id in bytes that are not JSON that we can read: cut off, too deep, with numbers or text that no parser takes.
//!
//! A webhook with a valid signature is Stripe's, and a refusal would lose it after three days of retries; so its id must be
//! found wherever a person would find it. One pass, one counter of depth, no recursion, no allocation until the id is there.

use crate::id::StripeId;

/// The value of the first key `id` of the outermost object that is an id of Stripe's.
pub(super) fn top_level_id(body: &[u8]) -> Option<StripeId> {
    let mut scan = Scan { body, at: 0 };
    if body.starts_with(b"\xef\xbb\xbf") {
        scan.at = 3;
    }
    scan.skip_space();
    if scan.next()? != b'{' {
        return None;
    }
    let mut depth: usize = 1;
    // True where the next string of the outermost object is a key.
    let mut key_follows = true;
    while depth > 0 {
        match scan.next()? {
            b'"' => {
                let text = scan.rest_of_string()?;
                if depth == 1 && key_follows {
                    key_follows = false;
                    if let (b"id", Some(id)) = (text, scan.id_after_colon()) {
                        return Some(id);
                    }
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b',' if depth == 1 => key_follows = true,
            _ => {}
        }
    }
    None
}

struct Scan<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.body.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn skip_space(&mut self) {
        while self.body.get(self.at).is_some_and(|byte| b" \t\r\n".contains(byte)) {
            self.at += 1;
        }
    }

    /// The raw bytes of a string whose opening quote was just read. An id holds no escapes, so none are undone.
    fn rest_of_string(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        loop {
            match self.next()? {
                b'"' => return self.body.get(start..self.at - 1),
                b'\\' => {
                    self.next()?;
                }
                _ => {}
            }
        }
    }

    /// Looks ahead past a colon for a string that is an id. Goes nowhere: what stands there is read again as a value.
    fn id_after_colon(&self) -> Option<StripeId> {
        let mut ahead = Scan { body: self.body, at: self.at };
        ahead.skip_space();
        if ahead.next()? != b':' {
            return None;
        }
        ahead.skip_space();
        if ahead.next()? != b'"' {
            return None;
        }
        std::str::from_utf8(ahead.rest_of_string()?).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(body: &[u8]) -> Option<String> {
        top_level_id(body).map(String::from)
    }

    #[test]
    fn finds_the_id_of_the_outermost_object_only() {
        let cases: &[(&[u8], Option<&str>)] = &[
            (br#"{"id":"evt_1"}"#, Some("evt_1")),
            (b"\xef\xbb\xbf { \"id\" :\n\"evt_1\" , ", Some("evt_1")),
            (br#"{"data":{"object":{"id":"ch_1"}},"id":"evt_1""#, Some("evt_1")),
            (br#"{"data":{"object":{"id":"ch_1"}},"#, None),
            (br#"{"data":[{"id":"ch_1"}, "id", "ch_2"],"id":"evt_1"}"#, Some("evt_1")),
            (br#"{"a":"id","b":"x\"id\":\"ch_1","id":"evt_1"}"#, Some("evt_1")),
            (br#"{"n":1e400,"s":"\ud800\u0000","id":"evt_1"}"#, Some("evt_1")),
            (b"{\"s\":\"\xff\xfe\",\"id\":\"evt_1\"}", Some("evt_1")),
            (br#"{"id":7,"id":"evt_1"}"#, Some("evt_1")),
            (br#"{"id":"no id","id":"evt_1"}"#, Some("evt_1")),
            (br#"{"id":"evt_"#, None),
            (br#"["id","evt_1"]"#, None),
            (br#"[{"id":"evt_1"}]"#, None),
            (br#"{"type":"id":"evt_1"}"#, None),
            (br#""id""#, None),
            (b"", None),
        ];
        for (body, expected) in cases {
            assert_eq!(id(body).as_deref(), *expected, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn depth_costs_nothing() {
        let mut body = br#"{"x":"#.to_vec();
        body.extend(std::iter::repeat_n(b'[', 500_000));
        body.extend(std::iter::repeat_n(b']', 500_000));
        body.extend_from_slice(br#","id":"evt_1"}"#);
        assert_eq!(id(&body).as_deref(), Some("evt_1"));
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            top_level_id(&body);
        }

        #[test]
        fn never_panics_on_what_looks_like_json(body in r#"[{}\[\],:"\\ ide_v1]{0,60}"#) {
            top_level_id(body.as_bytes());
        }

        /// Cut anywhere after the id, the id is still found.
        #[test]
        fn survives_a_cut(rest in ".{0,80}") {
            let body = format!(r#"{{"object":"event","id":"evt_1","data":{rest}"#);
            prop_assert_eq!(id(body.as_bytes()), Some("evt_1".to_owned()));
        }
    }
}
