//! Whose token: read from it, for menus and for its end. Whether it holds is the gateway's to say.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gloo::storage::{SessionStorage, Storage};
use serde::Deserialize;
use yew::prelude::*;

/// Where the token is kept: for this tab, and gone with it.
const KEPT_AS: &str = "fanledger.token";

/// As far ahead as a browser's timer reaches, 24 days: it keeps milliseconds in 31 bits, and fires at once beyond.
const TIMER_MS_MAX: u32 = i32::MAX as u32;

/// A token and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    token: Rc<str>,
    /// Whom it speaks for.
    pub subject: String,
    /// What it may do.
    pub roles: Vec<String>,
    /// Its end, in seconds since 1970.
    pub expires_at: u64,
}

/// Why a text is no token that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Not three parts of base64 with claims in the second.
    #[error("This is not a token. A token is one long line with two dots in it.")]
    Malformed,
    /// Its end has passed.
    #[error("This token has expired. Mint a new one.")]
    Expired,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    roles: Vec<String>,
    exp: u64,
}

impl Session {
    /// Reads a token, `now` in seconds since 1970. Its signature is not looked at: only the gateway can.
    ///
    /// # Errors
    /// [`TokenFault`].
    pub fn of_token(text: &str, now: u64) -> Result<Self, TokenFault> {
        let text = text.trim();
        let parts: Vec<&str> = text.split('.').collect();
        let [_, claims, _] = parts.as_slice() else { return Err(TokenFault::Malformed) };
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenFault::Malformed)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenFault::Malformed)?;
        if claims.exp <= now {
            return Err(TokenFault::Expired);
        }
        Ok(Self { token: text.into(), subject: claims.sub, roles: claims.roles, expires_at: claims.exp })
    }

    /// The token itself, for the `Authorization` header.
    pub fn token(&self) -> Rc<str> {
        Rc::clone(&self.token)
    }

    /// How long to wait until its end is looked at again, `now` in seconds since 1970; `None` where it has come.
    pub fn wait_ms(&self, now: u64) -> Option<u32> {
        let left = self.expires_at.checked_sub(now).filter(|left| *left > 0)?;
        Some(u32::try_from(left.saturating_mul(1_000)).unwrap_or(u32::MAX).min(TIMER_MS_MAX))
    }

    /// Whether it is told how far the projections are.
    pub fn may_follow(&self) -> bool {
        self.may(Area::Finance) || self.may(Area::Operations)
    }

    /// Whether menus show what this area has.
    pub fn may(&self, area: Area) -> bool {
        let role = match area {
            Area::Finance => "finance",
            Area::Operations => "operator",
        };
        self.roles.iter().any(|has| has == role || has == "admin")
    }
}

/// Who works with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Finance.
    Finance,
    /// Operators.
    Operations,
}

/// Who is signed in, and what the sign-in page tells if nobody is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// Who.
    pub current: Option<Session>,
    /// Why nobody any more.
    pub notice: Option<AttrValue>,
}

/// What changes who is signed in.
#[derive(Clone, Debug)]
pub enum SessionAction {
    /// With this token.
    SignIn(Session),
    /// By hand, or for the reason that is told.
    SignOut(Option<AttrValue>),
}

impl Reducible for Sessions {
    type Action = SessionAction;

    fn reduce(self: Rc<Self>, action: SessionAction) -> Rc<Self> {
        match action {
            SessionAction::SignIn(session) => {
                // A browser that keeps nothing asks again after a reload.
                SessionStorage::set(KEPT_AS, session.token.as_ref()).ok();
                Rc::new(Self { current: Some(session), notice: None })
            }
            SessionAction::SignOut(notice) => {
                SessionStorage::delete(KEPT_AS);
                Rc::new(Self { current: None, notice })
            }
        }
    }
}

/// The session of this tab, as components share it.
pub type SessionHandle = UseReducerHandle<Sessions>;

/// What this tab kept from before a reload.
pub fn kept() -> Sessions {
    let token: Option<String> = SessionStorage::get(KEPT_AS).ok();
    match token.map(|token| Session::of_token(&token, now())) {
        Some(Ok(session)) => Sessions { current: Some(session), notice: None },
        Some(Err(fault)) => Sessions { current: None, notice: Some(fault.to_string().into()) },
        None => Sessions::default(),
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    // Positive and far below 2^53.
    (js_sys::Date::now() as u64) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_says_whose_it_is_and_until_when() {
        let token = token(r#"{"sub":"ana","roles":["finance"],"exp":100,"iss":"fanledger"}"#);
        let session = Session::of_token(&format!("  {token}\n"), 99).unwrap();
        assert_eq!((session.subject.as_str(), session.expires_at), ("ana", 100));
        assert_eq!(&*session.token(), token);
        assert!(session.may(Area::Finance) && !session.may(Area::Operations));
        assert_eq!(Session::of_token(&token, 100), Err(TokenFault::Expired));
    }

    /// Waited for again and again, its end is found at its time: neither before nor after.
    #[test]
    fn the_end_of_a_token_that_no_timer_reaches_is_found() {
        for days in [1, 24, 25, 90] {
            let end = 1_000 + days * 86_400;
            let session =
                Session::of_token(&token(&format!(r#"{{"sub":"a","roles":[],"exp":{end}}}"#)), 1_000).unwrap();
            let (mut now, mut waits) = (1_000, 0);
            while let Some(wait_ms) = session.wait_ms(now) {
                assert!((1..=TIMER_MS_MAX).contains(&wait_ms));
                now += u64::from(wait_ms).div_ceil(1_000);
                waits += 1;
            }
            assert_eq!(now, end, "{days} days");
            assert!(waits <= days / 24 + 1, "{days} days: {waits}");
        }
    }

    #[test]
    fn an_admin_sees_every_menu_and_a_fan_none() {
        let session =
            |role: &str| Session::of_token(&token(&format!(r#"{{"sub":"a","roles":["{role}"],"exp":9}}"#)), 1).unwrap();
        assert!(session("admin").may(Area::Finance) && session("admin").may(Area::Operations));
        assert!(!session("fan").may(Area::Finance) && !session("fan").may(Area::Operations));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "x", "a.b", "a.b.c", &token("{}"), &token("[1]"), "a.b.c.d", "…"] {
            assert_eq!(Session::of_token(text, 0), Err(TokenFault::Malformed), "{text}");
        }
    }
}
