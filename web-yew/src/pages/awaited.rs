//! Fees and movements that Stripe has not told yet.

use fanledger_gateway_api::{AwaitedItem, AwaitedPart};
use yew::prelude::*;

use crate::as_of::View;
use crate::components::table::{self, figures, words};
use crate::components::{Link, account_name, empty, heading, loading, moment, money_in, pager, problem, stale};
use crate::hooks::{page::use_advance, use_pages, use_title};
use crate::routes::Route;

/// The page.
#[component]
pub(crate) fn AwaitedPage() -> Html {
    use_title("Awaited");
    let pages = use_pages::<AwaitedItem>("/api/v1/ledger/awaited".to_owned());
    let restart = pages.restart.reform(|()| None);
    use_advance(pages.is_at_the_top(), restart.clone());
    let content = match (&pages.items, &pages.error) {
        (None, Some(error)) => problem(error, Some(&restart)),
        (None, None) => loading("what is awaited"),
        (Some(items), _) if items.is_empty() => empty(
            "Nothing is awaited.",
            html! { "Every movement that was announced has its balance transaction, fee included." },
        ),
        (Some(items), error) => {
            let columns = [
                words("Object"),
                words("What is awaited"),
                words("Balance transaction"),
                words("Since"),
                figures("Amount"),
            ];
            html! {
                <>
                    { stale(error.as_ref()) }
                    <section class="card" aria-label="Awaited">
                        { table::plain(html! { "Awaited, oldest first" }, &columns, items.iter().map(row).collect()) }
                    </section>
                    { pager(items.len(), "item", pages.has_more, pages.asking, &pages.more) }
                </>
            }
        }
    };
    let unconfirmed = "assets:stripe:unconfirmed";
    let under = html! {
        <>
            { "Balance transactions, with their fees, that Stripe has announced and not shown. Until then the money stands in " }
            <Link to={Route::Account { account: unconfirmed.to_owned() }} view={View::default()}>{ account_name(unconfirmed) }</Link>{ "." }
        </>
    };
    html! { <>{ heading(html! { "Awaited" }, under, html! {}) }{ content }</> }
}

fn row(item: &AwaitedItem) -> Vec<Option<Html>> {
    let part = match item.part {
        AwaitedPart::Movement => "its movement",
        AwaitedPart::Return => "the return of its money",
    };
    let amount = money_in(item.amount_minor.0, &item.currency);
    vec![
        Some(html! { <span class="id">{ item.object.clone() }</span> }),
        Some(html! { part }),
        Some(item.balance_transaction.as_ref().map_or_else(
            || html! { <span class="hint">{ "not named" }</span> },
            |id| html! { <span class="id">{ id.clone() }</span> },
        )),
        Some(moment(&item.since)),
        Some(amount),
    ]
}
