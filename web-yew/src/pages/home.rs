//! What matters to the caller's roles, each figure the way to its page.

use fanledger_gateway_api::{AwaitedItem, Page, RunnerState, RunnerStatus, SuspenseItem, TrialBalance};
use yew::prelude::*;

use crate::components::{Link, badge, empty, heading, hint, loading, money, problem};
use crate::hooks::{Query, page::use_advance, use_interval, use_query, use_title};
use crate::routes::Route;
use crate::session::{Area, Session};
use crate::text;

/// So many items are counted; beyond, it is "more than".
const COUNTED_MAX: usize = 500;
/// How often the runners are looked at here.
const POLL_MS: u32 = 5_000;

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct HomeProps {
    pub session: Session,
}

/// The page.
#[component]
pub(crate) fn Home(props: &HomeProps) -> Html {
    use_title("Home");
    let (finance, operations) = (props.session.may(Area::Finance), props.session.may(Area::Operations));
    let under = html! { format!("Signed in as {}.", props.session.subject) };
    html! {
        <>
            { heading(html! { "Home" }, under, html! {}) }
            <div class="cards">
                if finance {
                    <Books />
                    <Waiting />
                }
                if operations {
                    <Runners />
                }
            </div>
            if !finance && !operations {
                { empty("There is nothing here for this token yet.", html! { "The pages so far are for finance and operators." }) }
            }
        </>
    }
}

/// An answer, or the place of it.
fn answered<T>(query: &Query<T>, what: &'static str, show: impl Fn(&T) -> Html) -> Html {
    match (&query.data, &query.error) {
        (Some(data), _) => show(data),
        (None, Some(error)) => problem(error, Some(&query.refresh.reform(|()| None))),
        (None, None) => loading(what),
    }
}

/// Whether the books balance.
#[component]
fn Books() -> Html {
    let query = use_query::<TrialBalance>(Some("/api/v1/ledger/trial-balance".to_owned()));
    use_advance(true, query.refresh.reform(|()| None));
    let content = answered(&query, "the books", |balance| {
        let rows = balance.currencies.iter().map(|currency| {
            let sum: i128 = currency.accounts.iter().map(|account| account.balance_minor.0).sum();
            let debits: i128 = currency.accounts.iter().map(|account| account.balance_minor.0.max(0)).sum();
            let verdict = if sum == 0 { badge("good", "balanced") } else { badge("bad", "not balanced") };
            let code = text::code(&currency.currency);
            html! { <li><span class="currency">{ code }</span>{ money(debits, &currency.currency) }{ verdict }</li> }
        });
        if balance.currencies.is_empty() {
            return empty("The ledger is empty.", html! { "Balances appear with the first webhook." });
        }
        html! { <>{ hint("All debit balances together, which are all credit balances together.") }<ul class="figures-list">{ for rows }</ul></> }
    });
    html! {
        <section class="card" aria-labelledby="books">
            <h2 id="books">{ "Books" }</h2>
            { content }
            <p><Link to={Route::TrialBalance}>{ "Trial balance" }</Link></p>
        </section>
    }
}

/// What waits for somebody, or for Stripe.
#[component]
fn Waiting() -> Html {
    let suspense = use_query::<Page<SuspenseItem>>(Some(format!("/api/v1/ledger/suspense?limit={COUNTED_MAX}")));
    let awaited = use_query::<Page<AwaitedItem>>(Some(format!("/api/v1/ledger/awaited?limit={COUNTED_MAX}")));
    let refresh = {
        let (suspense, awaited) = (suspense.refresh.clone(), awaited.refresh.clone());
        Callback::from(move |()| {
            suspense.emit(None);
            awaited.emit(None);
        })
    };
    use_advance(true, refresh);
    fn number<T>(page: &Page<T>) -> Html {
        let more = if page.next_cursor.is_some() { "more than " } else { "" };
        html! { <span class="number">{ format!("{more}{}", text::count(page.items.len() as u64)) }</span> }
    }
    html! {
        <section class="card" aria-labelledby="waiting">
            <h2 id="waiting">{ "Waiting" }</h2>
            <ul class="figures-list">
                <li><Link to={Route::Suspense}>{ "In suspense" }</Link>{ answered(&suspense, "suspense", number) }</li>
                <li><Link to={Route::Awaited}>{ "Awaited from Stripe" }</Link>{ answered(&awaited, "what is awaited", number) }</li>
            </ul>
        </section>
    }
}

/// How many runners are live.
#[component]
fn Runners() -> Html {
    let query = use_query::<Page<RunnerStatus>>(Some("/api/v1/ops/projections".to_owned()));
    use_interval(POLL_MS, true, query.refresh.reform(|()| None));
    let content = answered(&query, "the runners", |page| {
        let count = |state: RunnerState| page.items.iter().filter(|runner| runner.state == state).count() as u64;
        let states = [
            (RunnerState::Live, "good", "live"),
            (RunnerState::CatchingUp, "warn", "catching up"),
            (RunnerState::Paused, "warn", "paused"),
            (RunnerState::Halted, "bad", "halted"),
        ];
        let rows = states.into_iter().filter(|(state, ..)| *state == RunnerState::Live || count(*state) > 0);
        html! {
            <ul class="figures-list">
                { for rows.map(|(state, tone, word)| html! {
                    <li>{ badge(tone, word) }<span class="number">{ text::count(count(state)) }</span></li>
                }) }
            </ul>
        }
    });
    html! {
        <section class="card" aria-labelledby="runners">
            <h2 id="runners">{ "Projections" }</h2>
            { content }
            <p><Link to={Route::Projections}>{ "All of them" }</Link></p>
        </section>
    }
}
