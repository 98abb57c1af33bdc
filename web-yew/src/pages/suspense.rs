//! Money that waits for its meaning.

use fanledger_gateway_api::SuspenseItem;
use yew::prelude::*;

use crate::as_of::View;
use crate::components::table::{self, figures, words};
use crate::components::{Link, empty, heading, loading, moment, money_in, pager, problem, stale};
use crate::hooks::{page::use_advance, use_pages, use_title};
use crate::pages::attribution::{self, AttributionForm};
use crate::routes::Route;
use crate::text;

/// The page.
#[component]
pub(crate) fn SuspensePage() -> Html {
    use_title("Suspense");
    let pages = use_pages::<SuspenseItem>("/api/v1/ledger/suspense".to_owned());
    let restart = pages.restart.reform(|()| None);
    use_advance(pages.is_at_the_top(), restart.clone());
    let asked = use_state(|| None::<String>);
    let ask = {
        let asked = asked.clone();
        Callback::from(move |object: String| asked.set(Some(object)))
    };
    let form = asked.as_ref().and_then(|object| Some((object.clone(), attribution::path(object)?)));
    let form = form.map(|(object, path)| {
        let declined = {
            let asked = asked.clone();
            Callback::from(move |()| asked.set(None))
        };
        let done = {
            let (asked, restart) = (asked.clone(), pages.restart.clone());
            Callback::from(move |position: Option<u64>| {
                asked.set(None);
                restart.emit(position);
            })
        };
        html! { <AttributionForm {object} {path} {done} {declined} /> }
    });
    let content = match (&pages.items, &pages.error) {
        (None, Some(error)) => problem(error, Some(&restart)),
        (None, None) => loading("suspense"),
        (Some(items), _) if items.is_empty() => {
            empty("Nothing is in suspense.", html! { "All money that was seen has its meaning." })
        }
        (Some(items), error) => {
            let columns =
                [words("Object"), words("Why it waits"), words("Since"), figures("Amount"), figures("Action")];
            html! {
                <>
                    { stale(error.as_ref()) }
                    <section class="card" aria-label="In suspense">
                        { table::plain(html! { "In suspense, oldest first" }, &columns, items.iter().map(|item| row(item, &ask)).collect()) }
                    </section>
                    { pager(items.len(), "item", pages.has_more, pages.asking, &pages.more) }
                </>
            }
        }
    };
    let under = "Money whose owner, charge or creator is not known yet. It is nobody's income while it is here.";
    html! { <>{ heading(html! { "Suspense" }, html! { under }, html! {}) }{ content }{ for form }</> }
}

fn row(item: &SuspenseItem, ask: &Callback<String>) -> Vec<Option<Html>> {
    let to = Route::Account { account: item.account.clone() };
    let view = View::default().in_currency(&item.currency);
    // The account's last part is the reason: `unknown-charge`.
    let why = item.account.rsplit(':').next().unwrap_or_default().replace('-', " ");
    let amount = money_in(-item.balance_minor.0, &item.currency);
    vec![
        Some(html! { <span class="id">{ item.object.clone() }</span> }),
        Some(html! { <Link {to} {view}>{ text::sentence(&why) }</Link> }),
        Some(moment(&item.since)),
        Some(amount),
        // Whose charge it is would not say what the charge was: its own webhook has to come.
        attribution::path(&item.object).filter(|_| !item.account.ends_with(":unknown-charge")).map(|_| {
            let object = item.object.clone();
            let label = format!("Attribute {object}");
            let onclick = ask.reform(move |_: MouseEvent| object.clone());
            html! { <button type="button" {onclick} aria-label={label}>{ "Attribute" }</button> }
        }),
    ]
}
