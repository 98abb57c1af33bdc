//! What each creator has.

use fanledger_gateway_api::Minor;
use serde::Deserialize;
use yew::prelude::*;

use crate::components::table::{self, figures, words};
use crate::components::{Link, empty, heading, loading, money, pager, problem, stale};
use crate::hooks::{page::use_advance, use_pages, use_title};
use crate::routes::Route;
use crate::text;

/// `fanledger_gateway_api::CreatorBalance` as it lies on the wire. There its buckets are flattened, and what serde needs to put them
/// together again is larger than this page; a test holds the two to each other.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Row {
    creator: String,
    currency: String,
    pending_minor: Minor,
    available_minor: Minor,
    held_minor: Minor,
    receivable_minor: Minor,
    balance_minor: Minor,
}

/// The page.
#[component]
pub(crate) fn CreatorsPage() -> Html {
    use_title("Creators");
    let pages = use_pages::<Row>("/api/v1/ledger/creators".to_owned());
    let restart = pages.restart.reform(|()| None);
    use_advance(pages.is_at_the_top(), restart.clone());
    let content = match (&pages.items, &pages.error) {
        (None, Some(error)) => problem(error, Some(&restart)),
        (None, None) => loading("the creators"),
        (Some(items), _) if items.is_empty() => {
            empty("Nobody has anything yet.", html! { "A creator is here from the first entry that names them." })
        }
        (Some(items), error) => {
            let columns = [
                words("Creator"),
                figures("Pending"),
                figures("Available"),
                figures("Held"),
                figures("Owed by them"),
                figures("In all"),
            ];
            html! {
                <>
                    { stale(error.as_ref()) }
                    <section class="card" aria-label="Creators">
                        { table::plain(html! { "What they have, as of now" }, &columns, items.iter().map(row).collect()) }
                    </section>
                    { pager(items.len(), "balance", pages.has_more, pages.asking, &pages.more) }
                </>
            }
        }
    };
    let under =
        "Pending is earned and may not be paid out yet; held is frozen by a dispute. Each leads to their statement.";
    html! { <>{ heading(html! { "Creators" }, html! { under }, html! {}) }{ content }</> }
}

fn row(row: &Row) -> Vec<Option<Html>> {
    let to = Route::Creator { creator: row.creator.clone() };
    let name = html! {
        <><Link {to} class="id">{ row.creator.clone() }</Link>{ " " }<span class="unit">{ text::code(&row.currency) }</span></>
    };
    let cell = |minor: Minor| Some(money(minor.0, &row.currency));
    let owed = if row.receivable_minor.0 == 0 { None } else { cell(row.receivable_minor) };
    vec![
        Some(name),
        cell(row.pending_minor),
        cell(row.available_minor),
        cell(row.held_minor),
        owed,
        cell(row.balance_minor),
    ]
}

#[cfg(test)]
mod tests {
    use fanledger_gateway_api::{CreatorBalance, CreatorBuckets};

    use super::*;

    #[test]
    fn a_row_is_what_the_gateway_writes() {
        let buckets = CreatorBuckets {
            pending_minor: Minor(1),
            available_minor: Minor(-2),
            held_minor: Minor(3),
            receivable_minor: Minor(4),
        };
        let (creator, currency) = ("crt_a".to_owned(), "usd".to_owned());
        let balance = CreatorBalance { creator, currency, buckets, balance_minor: Minor(-2) };
        let read: Row = serde_json::from_value(serde_json::to_value(balance).unwrap()).unwrap();
        let minors =
            [read.pending_minor, read.available_minor, read.held_minor, read.receivable_minor, read.balance_minor];
        assert_eq!(minors.map(|minor| minor.0), [1, -2, 3, 4, -2]);
        assert_eq!((read.creator.as_str(), read.currency.as_str()), ("crt_a", "usd"));
    }
}
