//! Opaque cursors. A cursor is the key after which the next page begins, authenticated and bound to its list: the route and
//! the filters. So what a client sends back is exactly what we gave for this very list, or it is refused; no handler has to
//! distrust what it decodes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::auth::{JwtKey, keyed};
use crate::problem::{Kind, Problem};

/// 128 bits: nobody guesses one, and the cursor stays short.
const TAG_BYTES: usize = 16;

/// Makes and checks cursors.
#[derive(Clone)]
pub(crate) struct Cursors {
    key: [u8; 32],
}

/// The list that a cursor belongs to: its path with its filters, but neither `cursor` nor `limit`.
#[derive(Clone, Debug)]
pub(crate) struct List(pub(crate) String);

impl Cursors {
    pub(crate) fn new(key: &JwtKey) -> Self {
        Self { key: key.derive("cursor") }
    }

    fn tag(&self, list: &List, key: &[u8]) -> [u8; TAG_BYTES] {
        let mut mac = keyed(&self.key);
        mac.update(&(list.0.len() as u64).to_be_bytes());
        mac.update(list.0.as_bytes());
        mac.update(key);
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&full[..TAG_BYTES]);
        tag
    }

    /// The cursor for what follows `after` in this list.
    pub(crate) fn seal<K: Serialize>(&self, list: &List, after: &K) -> Result<String, Problem> {
        let key = serde_json::to_vec(after).map_err(|error| Problem::internal(&error))?;
        let mut bytes = self.tag(list, &key).to_vec();
        bytes.extend_from_slice(&key);
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What was sealed for this very list.
    pub(crate) fn open<K: DeserializeOwned>(&self, list: &List, cursor: &str) -> Result<K, Problem> {
        let refused = || {
            Problem::new(
                Kind::CursorInvalid,
                "Take `next_cursor` as it was given, with the same path and filters; or begin again without one.",
            )
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
        let (tag, key) = bytes.split_at_checked(TAG_BYTES).ok_or_else(refused)?;
        if !bool::from(subtle::ConstantTimeEq::ct_eq(tag, self.tag(list, key).as_slice())) {
            return Err(refused());
        }
        // Ours, but from before its form changed.
        serde_json::from_slice(key).map_err(|_| refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_for_its_list_only() {
        let cursors = Cursors::new(&JwtKey::new(&[1; 32]).unwrap());
        let list = List("/a?by=effective".to_owned());
        let cursor = cursors.seal(&list, &(17u64, "x")).unwrap();
        assert_eq!(cursors.open::<(u64, String)>(&list, &cursor).unwrap(), (17, "x".to_owned()));
        assert!(cursors.open::<(u64, String)>(&List("/a?by=occurred".to_owned()), &cursor).is_err());
        assert!(cursors.open::<(u64, String)>(&List("/b?by=effective".to_owned()), &cursor).is_err());
        assert!(Cursors::new(&JwtKey::new(&[2; 32]).unwrap()).open::<(u64, String)>(&list, &cursor).is_err());
    }

    #[test]
    fn a_changed_cursor_is_refused() {
        let cursors = Cursors::new(&JwtKey::new(&[1; 32]).unwrap());
        let list = List("/a".to_owned());
        let cursor = cursors.seal(&list, &17u64).unwrap();
        for at in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(cursors.open::<u64>(&list, &changed).unwrap_err().kind(), Kind::CursorInvalid, "byte {at}");
        }
        for bad in ["", "AAAA", "not base64!", &cursor[1..]] {
            assert!(cursors.open::<u64>(&list, bad).is_err(), "{bad}");
        }
    }
}
