//! Verifies the `Stripe-Signature` header (<https://docs.stripe.com/webhooks/signature>).
//!
//! The verdicts are those of Stripe's own SDKs, checked by `tests/stripe_signature.rs` against what these say, with these
//! differences: a `t` in the far future is refused, and so is whatever the SDKs disagree about (several `t`, a sign or spaces in
//! it, an empty `v1`). The bytes of the body are what is signed, and are not decoded here: the SDKs cannot do with a body that is
//! not UTF-8, and we can.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

/// How many seconds a signature may be old, or ahead of our clock. The SDKs' default for age; they accept any future.
pub const TOLERANCE_SECONDS: i64 = 300;

/// An endpoint's secret, used as written, `whsec_` included. Wiped when dropped, never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// An empty secret would let anybody sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an endpoint's secret is blank: set FANLEDGER_STRIPE_WEBHOOK_SECRETS to the secrets that Stripe shows for the endpoint, whsec_…"
)]
pub struct BlankSecret;

impl Secret {
    /// Refuses a blank secret.
    pub fn new(text: &str) -> Result<Self, BlankSecret> {
        if text.trim().is_empty() { Err(BlankSecret) } else { Ok(Self(Zeroizing::new(text.as_bytes().to_vec()))) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a webhook is not believed to be Stripe's. Answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No header, or an empty one.
    #[error("no Stripe-Signature header: only Stripe may call this endpoint")]
    Missing,
    /// Not of the form `t=<seconds>,v1=<hex>`.
    #[error("malformed Stripe-Signature header: expected exactly one t of digits, and v1=<hex>, separated by commas")]
    Malformed,
    /// Only schemes that do not count, such as `v0`.
    #[error("no v1 signature in the Stripe-Signature header: no other scheme counts")]
    NoV1,
    /// No v1 matches under any of the configured secrets.
    #[error(
        "no signature matches: check that the endpoint's secret is among those configured, and that nothing rewrites the body on its way"
    )]
    Mismatch,
    /// Rightly signed, too long ago: a replay, or a clock that is ahead.
    #[error(
        "signed {age_seconds} s ago, which is more than {TOLERANCE_SECONDS} s: a replay, or this machine's clock is ahead"
    )]
    Stale {
        /// How long ago.
        age_seconds: i64,
    },
    /// Rightly signed, in the future: this machine's clock is behind.
    #[error(
        "signed {ahead_seconds} s in the future, which is more than {TOLERANCE_SECONDS} s: this machine's clock is behind"
    )]
    Early {
        /// How far ahead.
        ahead_seconds: i64,
    },
}

/// Whether any v1 of the header is the signature of the raw `body` under any of the secrets, made at most 300 s from `now`.
///
/// The signature is looked at before the time, so that only Stripe learns what our clock says; and all secrets and signatures are
/// compared, each in constant time, so that nobody learns which matched.
pub fn verify(
    header: Option<&[u8]>,
    body: &[u8],
    secrets: &[Secret],
    now_unix_seconds: i64,
) -> Result<(), SignatureError> {
    let Parsed { signed_at, signatures } = parse(header)?;
    let mut matched = Choice::from(0);
    for secret in secrets {
        let expected = signature(secret, signed_at, body);
        for candidate in &signatures {
            matched |= expected.as_bytes().ct_eq(candidate);
        }
    }
    if !bool::from(matched) {
        return Err(SignatureError::Mismatch);
    }
    // `t` has no sign, so the difference cannot overflow for any clock that shows a time after 1970.
    let age_seconds = now_unix_seconds.saturating_sub(signed_at);
    if age_seconds > TOLERANCE_SECONDS {
        Err(SignatureError::Stale { age_seconds })
    } else if age_seconds < -TOLERANCE_SECONDS {
        Err(SignatureError::Early { ahead_seconds: age_seconds.saturating_neg() })
    } else {
        Ok(())
    }
}

/// The value of the header that makes `body` pass [`verify`]: for tests, and for tools that send webhooks to a platform of one's own.
pub fn sign(secret: &Secret, body: &[u8], now_unix_seconds: i64) -> String {
    format!("t={now_unix_seconds},v1={}", signature(secret, now_unix_seconds, body))
}

/// Lowercase hex of HMAC-SHA256 over `"{t}." + body`.
fn signature(secret: &Secret, signed_at: i64, body: &[u8]) -> String {
    // HMAC takes a key of any length; the fallback is never taken and matches nothing.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&secret.0) else { return String::new() };
    mac.update(signed_at.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

struct Parsed<'a> {
    signed_at: i64,
    signatures: Vec<&'a [u8]>,
}

fn parse(header: Option<&[u8]>) -> Result<Parsed<'_>, SignatureError> {
    let header = header.filter(|header| !header.is_empty()).ok_or(SignatureError::Missing)?;
    let mut signed_at = None;
    let mut signatures = Vec::new();
    for element in header.split(|&byte| byte == b',') {
        // As the SDKs have it: the value ends at a second `=`. Keys are compared as they are, spaces and all.
        let mut parts = element.split(|&byte| byte == b'=');
        match (parts.next(), parts.next()) {
            (Some(b"t"), value) if signed_at.is_none() => {
                signed_at = Some(value.and_then(seconds).ok_or(SignatureError::Malformed)?)
            }
            (Some(b"t"), _) | (Some(b"v1"), None | Some(b"")) => return Err(SignatureError::Malformed),
            (Some(b"v1"), Some(value)) => signatures.push(value),
            _ => {}
        }
    }
    let signed_at = signed_at.ok_or(SignatureError::Malformed)?;
    if signatures.is_empty() { Err(SignatureError::NoV1) } else { Ok(Parsed { signed_at, signatures }) }
}

/// Digits only: no sign, no space, nothing that does not fit.
fn seconds(value: &[u8]) -> Option<i64> {
    let digits =
        std::str::from_utf8(value).ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;
    const BODY: &[u8] = br#"{"id":"evt_1"}"#;

    fn secret() -> Secret {
        Secret::new("whsec_test").unwrap()
    }

    fn verdict(header: &str) -> Result<(), SignatureError> {
        verify(Some(header.as_bytes()), BODY, &[secret()], NOW)
    }

    #[test]
    fn what_is_signed_here_is_verified_here() {
        assert_eq!(verdict(&sign(&secret(), BODY, NOW)), Ok(()));
        assert_eq!(verify(Some(sign(&secret(), b"", NOW).as_bytes()), b"", &[secret()], NOW), Ok(()));
    }

    #[test]
    fn the_tolerance_is_300_seconds_either_way() {
        for (signed_at, expected) in [
            (NOW - 300, Ok(())),
            (NOW - 301, Err(SignatureError::Stale { age_seconds: 301 })),
            (NOW + 300, Ok(())),
            (NOW + 301, Err(SignatureError::Early { ahead_seconds: 301 })),
            (0, Err(SignatureError::Stale { age_seconds: NOW })),
            (i64::MAX, Err(SignatureError::Early { ahead_seconds: i64::MAX - NOW })),
        ] {
            assert_eq!(verdict(&sign(&secret(), BODY, signed_at)), expected, "{signed_at}");
        }
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let good = sign(&secret(), BODY, NOW);
        let (t, v1) = good.split_once(',').unwrap();
        for (header, expected) in [
            (String::new(), SignatureError::Missing),
            ("nonsense".to_owned(), SignatureError::Malformed),
            (v1.to_owned(), SignatureError::Malformed),
            (t.to_owned(), SignatureError::NoV1),
            (good.replace("v1=", "v0="), SignatureError::NoV1),
            (format!("{t},{good}"), SignatureError::Malformed),
            (format!("{good},v1"), SignatureError::Malformed),
            (good.replace("t=", "t=+"), SignatureError::Malformed),
            (good.replace("t=", "t= "), SignatureError::Malformed),
            (good.replace("t=", "t=99999999999999"), SignatureError::Malformed),
            (good.replace("v1=", "v1= "), SignatureError::Mismatch),
            (format!("{t},v1="), SignatureError::Malformed),
            (format!("{t},v1=0"), SignatureError::Mismatch),
        ] {
            assert_eq!(verdict(&header), Err(expected), "{header}");
        }
        assert_eq!(verify(None, BODY, &[secret()], NOW), Err(SignatureError::Missing));
        assert_eq!(verify(Some(b"\xff\xfe=\xff"), BODY, &[secret()], NOW), Err(SignatureError::Malformed));
    }

    #[test]
    fn without_secrets_nothing_is_believed() {
        assert_eq!(verify(Some(sign(&secret(), BODY, NOW).as_bytes()), BODY, &[], NOW), Err(SignatureError::Mismatch));
        for blank in ["", " ", "\n"] {
            assert_eq!(Secret::new(blank).unwrap_err(), BlankSecret);
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", secret()), "Secret(…)");
    }
}
