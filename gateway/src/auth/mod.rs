//! Who calls: bearer tokens (JWT, HS256 and nothing else) and the roles in them.
//!
//! Every claim is required and checked. The clock may differ by [`LEEWAY_SECONDS`]; `jsonwebtoken` itself would allow a
//! minute and would not look at `nbf`.

mod provider;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use fanledger_domain::id::Subject;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::problem::{Kind, Problem};

/// How far clocks may differ when `exp`, `nbf` and `iat` are judged.
pub const LEEWAY_SECONDS: u64 = 5;
/// Who mints tokens.
pub const ISSUER: &str = "fanledger";
/// For whom they are.
pub const AUDIENCE: &str = "fanledger-api";
/// Shorter keys can be searched: RFC 7518, section 3.2, wants as many bits as the hash has.
pub const KEY_BYTES_MIN: usize = 32;
/// The longest lifetime that is minted.
const YEAR_SECONDS: u64 = 366 * 24 * 3600;
/// A token is a header line: whatever is longer is not one of ours.
const TOKEN_BYTES_MAX: usize = 4096;

macro_rules! roles {
    ($( $(#[$doc:meta])* $name:ident $text:literal; )*) => {
        /// What a caller may do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Role {
            $( $(#[$doc])* $name, )*
        }

        impl Role {
            /// All of them.
            pub const ALL: &[Role] = &[$( Role::$name ),*];

            /// The role's text in a token.
            pub const fn as_str(self) -> &'static str {
                match self { $( Role::$name => $text, )* }
            }
        }

        impl FromStr for Role {
            type Err = TokenError;
            fn from_str(text: &str) -> Result<Self, TokenError> {
                match text {
                    $( $text => Ok(Role::$name), )*
                    _ => Err(TokenError::UnknownRole),
                }
            }
        }
    };
}

roles! {
    /// Follows and pays.
    Fan "fan";
    /// Publishes and earns.
    Creator "creator";
    /// Looks after what is published.
    Moderator "moderator";
    /// Reads the books.
    Finance "finance";
    /// Keeps the system running.
    Operator "operator";
    /// May do everything.
    Admin "admin";
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a token was not minted or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The signing key is too short.
    #[error("the JWT key has {bytes} bytes: give at least {KEY_BYTES_MIN}, for instance from `openssl rand -hex 32`")]
    KeyTooShort {
        /// How long it is.
        bytes: usize,
    },
    /// A role that does not exist.
    #[error("unknown role: expected fan, creator, moderator, finance, operator or admin")]
    UnknownRole,
    /// No role at all.
    #[error("a token needs at least one role")]
    NoRole,
    /// A subject that is no id.
    #[error("a token's subject is an id of 1 to 128 visible ASCII characters without @")]
    Subject,
    /// A lifetime that is zero or does not fit.
    #[error("a token's lifetime is at least a second and at most a year")]
    Lifetime,
    /// The clock stands before 1970.
    #[error("the clock stands before 1970")]
    Clock,
    /// It could not be signed.
    #[error("sign the token")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// It is past its `exp`.
    #[error("the token has expired")]
    Expired,
    /// It is before its `nbf`, or its `iat` is in the future.
    #[error("the token is not valid yet")]
    NotYet,
    /// It is for another audience.
    #[error("the token is for another audience")]
    Audience,
    /// It is from another issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// Not HS256.
    #[error("the token is not signed with HS256")]
    Algorithm,
    /// A claim is missing or of the wrong form.
    #[error(
        "the token lacks one of the claims sub, roles, iss, aud, exp, nbf, iat, jti, or one of them has the wrong form"
    )]
    Claims,
    /// The signature does not match, or it is no token at all.
    #[error("the token's form or signature is wrong")]
    Invalid,
}

/// The claims of a token, all of them required.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    roles: Vec<Role>,
    iss: String,
    aud: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
}

/// The key that signs tokens; other keys (cursors) are derived from it. Never printed.
#[derive(Clone)]
pub struct JwtKey(Arc<[u8]>);

impl JwtKey {
    /// Takes a key of at least [`KEY_BYTES_MIN`] bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, TokenError> {
        if bytes.len() < KEY_BYTES_MIN {
            return Err(TokenError::KeyTooShort { bytes: bytes.len() });
        }
        Ok(Self(bytes.into()))
    }

    /// A key for another purpose, from which this one cannot be found.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut mac = keyed(&self.0);
        mac.update(b"fanledger/derived-key/v1\0");
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// HMAC-SHA256 under a key of any length.
pub(crate) fn keyed(key: &[u8]) -> Hmac<Sha256> {
    match Hmac::new_from_slice(key) {
        Ok(mac) => mac,
        // HMAC takes keys of every length (RFC 2104, section 3); the error type is for other constructions.
        Err(_) => unreachable!("HMAC takes keys of every length"),
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JwtKey([redacted])")
    }
}

fn now_seconds() -> Result<u64, TokenError> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(|_| TokenError::Clock)?;
    Ok(since.as_secs())
}

/// Mints a token for `subject` with these roles, valid from now for `lifetime`.
pub fn mint(key: &JwtKey, roles: &[Role], subject: &str, lifetime: Duration) -> Result<String, TokenError> {
    if roles.is_empty() {
        return Err(TokenError::NoRole);
    }
    if subject.parse::<Subject>().is_err() {
        return Err(TokenError::Subject);
    }
    if !(1..=YEAR_SECONDS).contains(&lifetime.as_secs()) {
        return Err(TokenError::Lifetime);
    }
    provider::install();
    let now = now_seconds()?;
    let claims = Claims {
        sub: subject.to_owned(),
        roles: roles.to_vec(),
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        exp: now + lifetime.as_secs(),
        nbf: now,
        iat: now,
        jti: uuid::Uuid::now_v7().to_string(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&key.0))
        .map_err(TokenError::Sign)
}

/// Who calls, as their token says.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token's subject.
    pub subject: String,
    /// What they may do.
    pub roles: Vec<Role>,
    /// The token's `jti`: names who did it in the log, without naming a person.
    pub token_id: String,
    /// When the token ends, in seconds since 1970.
    pub expires_at_seconds: u64,
}

impl Caller {
    /// Who acts, as events name them. Whoever else has the key may mint a token whose subject is no id of ours.
    pub(crate) fn subject(&self) -> Result<Subject, Problem> {
        self.subject.parse().map_err(|error| Problem::new(Kind::TokenInvalid, format!("The token's `sub`: {error}.")))
    }

    /// For how much longer the token holds; at most a year, so that no token of another minter passes what a clock can add.
    pub(crate) fn remaining(&self) -> Duration {
        let now = now_seconds().unwrap_or(u64::MAX);
        Duration::from_secs(self.expires_at_seconds.saturating_sub(now).min(YEAR_SECONDS))
    }
}

/// Checks tokens.
#[derive(Clone)]
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    /// For tokens signed with this key.
    pub fn new(key: &JwtKey) -> Self {
        provider::install();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        Self { key: DecodingKey::from_secret(&key.0), validation }
    }

    /// The caller that this token names.
    pub fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let data =
            jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                ErrorKind::ImmatureSignature => TokenError::NotYet,
                ErrorKind::InvalidAudience => TokenError::Audience,
                ErrorKind::InvalidIssuer => TokenError::Issuer,
                ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
                    TokenError::Algorithm
                }
                ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => {
                    TokenError::Claims
                }
                // The crate's list of kinds is open; whatever else there is, the token does not count.
                _ => TokenError::Invalid,
            })?;
        // RFC 7515, section 4.1.11: what is marked critical must be understood, and we understand no extension.
        if data.header.crit.is_some() {
            return Err(TokenError::Invalid);
        }
        let claims = data.claims;
        if claims.sub.is_empty() || claims.jti.is_empty() || claims.roles.is_empty() || claims.exp < claims.nbf {
            return Err(TokenError::Claims);
        }
        if claims.iat > now_seconds()?.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenError::NotYet);
        }
        Ok(Caller { subject: claims.sub, roles: claims.roles, token_id: claims.jti, expires_at_seconds: claims.exp })
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        const HOW: &str = "Send `Authorization: Bearer <token>`; `fanledger token mint --role <role>` makes one.";
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (header, second) = (given.next(), given.next());
        let Some(header) = header else { return Err(Problem::new(Kind::TokenMissing, HOW)) };
        let token = header.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        match (token, second) {
            (Some(token), None) => self.verify(token).map_err(|error| {
                metrics::counter!("fanledger_gateway_tokens_refused_total").increment(1);
                Problem::new(Kind::TokenInvalid, format!("{error}."))
            }),
            _ => Err(Problem::new(Kind::TokenInvalid, HOW)),
        }
    }
}

/// A guard in front of routes: who may pass.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) verifier: Verifier,
    pub(crate) roles: &'static [Role],
}

/// Lets a caller with one of the guard's roles through, and says who it is.
pub(crate) async fn require(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let caller = match guard.verifier.caller(request.headers()) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    if !caller.roles.iter().any(|role| guard.roles.contains(role)) {
        let wanted: Vec<&str> = guard.roles.iter().map(|role| role.as_str()).collect();
        return Problem::new(Kind::RoleMissing, format!("It takes one of the roles: {}.", wanted.join(", ")))
            .into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::*;

    fn key() -> JwtKey {
        JwtKey::new(&[7; 32]).unwrap()
    }

    fn claims() -> Value {
        let now = now_seconds().unwrap();
        json!({"sub": "ops", "roles": ["operator"], "iss": ISSUER, "aud": AUDIENCE, "exp": now + 60, "nbf": now, "iat": now, "jti": "1"})
    }

    fn token(header: Value, claims: &Value, key: &[u8]) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let mut mac = keyed(key);
        mac.update(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    fn with(field: &str, value: Value) -> Value {
        let mut all = claims();
        all[field] = value;
        all
    }

    #[test]
    fn what_is_minted_verifies() {
        let token = mint(&key(), &[Role::Finance, Role::Admin], "alice", Duration::from_secs(60)).unwrap();
        let caller = Verifier::new(&key()).verify(&token).unwrap();
        assert_eq!(
            (caller.subject.as_str(), caller.roles.as_slice()),
            ("alice", [Role::Finance, Role::Admin].as_slice())
        );
    }

    #[test]
    fn an_end_beyond_all_time_can_be_waited_for() {
        let token = token(json!({"alg": "HS256"}), &with("exp", json!(u64::MAX)), &[7; 32]);
        let remaining = Verifier::new(&key()).verify(&token).unwrap().remaining();
        assert!(std::time::Instant::now().checked_add(remaining).is_some());
    }

    #[test]
    fn every_claim_is_required() {
        let verifier = Verifier::new(&key());
        for claim in ["sub", "roles", "iss", "aud", "exp", "nbf", "iat", "jti"] {
            let mut all = claims();
            all.as_object_mut().unwrap().remove(claim);
            let verdict = verifier.verify(&token(json!({"alg": "HS256"}), &all, &[7; 32]));
            assert!(matches!(verdict, Err(TokenError::Claims)), "{claim}: {verdict:?}");
        }
    }

    #[test]
    fn times_are_judged_with_little_leeway() {
        let verifier = Verifier::new(&key());
        let now = now_seconds().unwrap();
        let verdict = |all: &Value| verifier.verify(&token(json!({"alg": "HS256"}), all, &[7; 32]));
        assert!(matches!(
            verdict(
                &json!({"sub": "s", "roles": ["fan"], "iss": ISSUER, "aud": AUDIENCE, "exp": now - 10, "nbf": 1, "iat": 1, "jti": "1"})
            ),
            Err(TokenError::Expired)
        ));
        assert!(matches!(verdict(&with("nbf", json!(now + 30))), Err(TokenError::NotYet)));
        assert!(matches!(verdict(&with("iat", json!(now + 30))), Err(TokenError::NotYet)));
        assert!(verdict(&with("nbf", json!(now + 2))).is_ok());
        assert!(matches!(verdict(&with("exp", json!("soon"))), Err(TokenError::Claims)));
        assert!(matches!(verdict(&with("exp", json!(-1))), Err(TokenError::Claims)));
    }

    #[test]
    fn another_issuer_audience_or_role_is_refused() {
        let verifier = Verifier::new(&key());
        let verdict = |all: &Value| verifier.verify(&token(json!({"alg": "HS256"}), all, &[7; 32]));
        assert!(matches!(verdict(&with("iss", json!("else"))), Err(TokenError::Issuer)));
        assert!(matches!(verdict(&with("aud", json!("else"))), Err(TokenError::Audience)));
        assert!(matches!(verdict(&with("roles", json!(["root"]))), Err(TokenError::Claims)));
        assert!(matches!(verdict(&with("roles", json!([]))), Err(TokenError::Claims)));
    }

    #[test]
    fn only_hs256_under_our_key_counts() {
        let verifier = Verifier::new(&key());
        let good = token(json!({"alg": "HS256"}), &claims(), &[7; 32]);
        assert!(verifier.verify(&good).is_ok());
        for alg in ["none", "None", "HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256"] {
            assert!(verifier.verify(&token(json!({"alg": alg}), &claims(), &[7; 32])).is_err(), "{alg}");
        }
        assert!(verifier.verify(&token(json!({"alg": "HS256"}), &claims(), &[8; 32])).is_err(), "another key");
        assert!(
            verifier.verify(&token(json!({"alg": "HS256", "crit": ["exp"]}), &claims(), &[7; 32])).is_err(),
            "crit"
        );
        let (message, signature) = good.rsplit_once('.').unwrap();
        assert!(verifier.verify(&format!("{message}.")).is_err(), "no signature");
        assert!(verifier.verify(&format!("{message}.{}", &signature[..20])).is_err(), "a shortened signature");
        assert!(verifier.verify(&format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX))).is_err(), "huge");
    }

    #[test]
    fn minting_refuses_what_would_not_verify() {
        assert!(matches!(JwtKey::new(&[1; 31]), Err(TokenError::KeyTooShort { bytes: 31 })));
        assert!(matches!(mint(&key(), &[], "a", Duration::from_secs(1)), Err(TokenError::NoRole)));
        assert!(matches!(mint(&key(), &[Role::Fan], "a b", Duration::from_secs(1)), Err(TokenError::Subject)));
        assert!(matches!(mint(&key(), &[Role::Fan], "a", Duration::ZERO), Err(TokenError::Lifetime)));
        assert_eq!(format!("{:?}", key()), "JwtKey([redacted])");
    }
}
