//! Amounts, instants and accounts, as they stand in running text and in tables.

use yew::prelude::*;

use crate::text;

/// An amount with its currency's decimals. Figures have one width, so that columns of them line up.
pub fn money(minor: i128, currency: &str) -> Html {
    html! { <span class="money">{ text::amount(minor, currency) }</span> }
}

/// The same with its currency's code after it.
pub fn money_in(minor: i128, currency: &str) -> Html {
    html! { <span class="money">{ text::amount(minor, currency) }{ " " }<span class="unit">{ text::code(currency) }</span></span> }
}

/// An instant, in UTC; the exact one is in the mark-up.
pub(crate) fn moment(rfc3339: &str) -> Html {
    html! { <time datetime={rfc3339.to_owned()} title={rfc3339.to_owned()}>{ text::instant(rfc3339) }</time> }
}

/// An account, which may be broken at its colons where a line is short.
pub(crate) fn account_name(account: &str) -> Html {
    let parts = account.split_inclusive(':').map(|part| html! { <>{ part.to_owned() }<wbr /></> });
    html! { <span class="account">{ for parts }</span> }
}
