//! Every page's address.

use std::collections::HashMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use yew_router::Routable;

/// What of a path's segment is written as it is: ids and accounts stay readable (RFC 3986, `pchar`).
const SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':').remove(b'@');

/// One segment of a path.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// What matters to the caller's roles.
    Home,
    /// Where a token is given.
    SignIn,
    /// Every account's balance.
    TrialBalance,
    /// One account and what moved it.
    Account {
        /// `assets:stripe:clearing`.
        account: String,
    },
    /// One entry and what led to it.
    Entry {
        /// Its id.
        id: String,
    },
    /// What each creator has.
    Creators,
    /// One creator's statement, and the entries behind it.
    Creator {
        /// `crt_…`.
        creator: String,
    },
    /// What was closed.
    Periods,
    /// Money that waits for its meaning.
    Suspense,
    /// Balance transactions that were not seen yet.
    Awaited,
    /// One webhook.
    StripeEvent {
        /// `evt_…`.
        id: String,
    },
    /// Every runner.
    Projections,
    /// One runner.
    Projection {
        /// Its name.
        name: String,
    },
    /// No page.
    NotFound,
}

impl Route {
    fn parse(path: &str) -> Self {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned);
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let found = match parts.as_slice() {
            [""] => Some(Self::Home),
            ["sign-in"] => Some(Self::SignIn),
            ["ledger", "trial-balance"] => Some(Self::TrialBalance),
            ["ledger", "accounts", account] => decoded(account).map(|account| Self::Account { account }),
            ["ledger", "entries", id] => decoded(id).map(|id| Self::Entry { id }),
            ["ledger", "creators"] => Some(Self::Creators),
            ["ledger", "creators", creator] => decoded(creator).map(|creator| Self::Creator { creator }),
            ["ledger", "periods"] => Some(Self::Periods),
            ["ledger", "suspense"] => Some(Self::Suspense),
            ["ledger", "awaited"] => Some(Self::Awaited),
            ["stripe", "events", id] => decoded(id).map(|id| Self::StripeEvent { id }),
            ["ops", "projections"] => Some(Self::Projections),
            ["ops", "projections", name] => decoded(name).map(|name| Self::Projection { name }),
            _ => None,
        };
        found.unwrap_or(Self::NotFound)
    }
}

/// By hand rather than derived: the derived one writes `assets%3Astripe%3Aclearing`.
impl Routable for Route {
    fn from_path(path: &str, _: &HashMap<&str, &str>) -> Option<Self> {
        Some(Self::parse(path))
    }

    fn to_path(&self) -> String {
        match self {
            Self::Home => "/".to_owned(),
            Self::SignIn => "/sign-in".to_owned(),
            Self::TrialBalance => "/ledger/trial-balance".to_owned(),
            Self::Account { account } => format!("/ledger/accounts/{}", segment(account)),
            Self::Entry { id } => format!("/ledger/entries/{}", segment(id)),
            Self::Creators => "/ledger/creators".to_owned(),
            Self::Creator { creator } => format!("/ledger/creators/{}", segment(creator)),
            Self::Periods => "/ledger/periods".to_owned(),
            Self::Suspense => "/ledger/suspense".to_owned(),
            Self::Awaited => "/ledger/awaited".to_owned(),
            Self::StripeEvent { id } => format!("/stripe/events/{}", segment(id)),
            Self::Projections => "/ops/projections".to_owned(),
            Self::Projection { name } => format!("/ops/projections/{}", segment(name)),
            Self::NotFound => "/ledger/not-found".to_owned(),
        }
    }

    fn routes() -> Vec<&'static str> {
        fanledger_gateway_api::pages::PATHS.to_vec()
    }

    fn not_found_route() -> Option<Self> {
        Some(Self::NotFound)
    }

    fn recognize(path: &str) -> Option<Self> {
        Some(Self::parse(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Route> {
        let text = || "assets:stripe/x ü%25?#".to_owned();
        vec![
            Route::Home,
            Route::SignIn,
            Route::TrialBalance,
            Route::Account { account: text() },
            Route::Entry { id: text() },
            Route::Creators,
            Route::Creator { creator: text() },
            Route::Periods,
            Route::Suspense,
            Route::Awaited,
            Route::StripeEvent { id: text() },
            Route::Projections,
            Route::Projection { name: text() },
            Route::NotFound,
        ]
    }

    #[test]
    fn each_route_reads_back_from_its_path() {
        for route in all() {
            assert_eq!(Route::recognize(&route.to_path()), Some(route.clone()), "{}", route.to_path());
        }
        for path in ["/ledger", "/ledger/nothing", "/ledger/accounts/a/b", "/x", "/stripe/events/%FF"] {
            assert_eq!(Route::recognize(path), Some(Route::NotFound), "{path}");
        }
    }

    #[test]
    fn an_account_stays_readable() {
        let route = Route::Account { account: "liabilities:creators:crt_a:pending".to_owned() };
        assert_eq!(route.to_path(), "/ledger/accounts/liabilities:creators:crt_a:pending");
    }

    /// What the gateway does not answer with the app would be a page that a reload breaks.
    #[test]
    fn the_gateway_serves_each_route() {
        for route in all() {
            let path = route.to_path();
            let served =
                fanledger_gateway_api::pages::PATHS.iter().any(|pattern| match pattern.strip_suffix("{*page}") {
                    Some(root) => path.starts_with(root),
                    None => path == *pattern,
                });
            assert!(served, "{path}");
        }
    }
}
