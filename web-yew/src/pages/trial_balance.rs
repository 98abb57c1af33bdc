//! Every account's balance.

use std::rc::Rc;

use fanledger_gateway_api::{AccountTurnover, Closing, CurrencyBalances, TrialBalance};
use web_sys::HtmlInputElement;
use yew::prelude::*;

use crate::as_of::View;
use crate::components::as_of::AsOfPicker;
use crate::components::table::{self, Group, figures, words};
use crate::components::{Link, account_name, empty, fact, facts, heading, loading, moment, money, problem, stale};
use crate::hooks::{page::use_advance, use_query, use_title, use_view};
use crate::routes::Route;
use crate::text;

/// More rows than this are shown when they are asked for: a browser lays out tens of thousands slowly.
const ROWS_MAX: usize = 400;
/// The roots in the order in which books are read. An account of another one, which a newer gateway may have, stands below them.
const ROOTS: [(&str, &str); 5] = [
    ("assets", "Assets"),
    ("liabilities", "Liabilities"),
    ("income", "Income"),
    ("expenses", "Expenses"),
    ("equity", "Equity"),
];

/// The page.
#[component]
pub(crate) fn TrialBalancePage() -> Html {
    let (view, change) = use_view();
    use_title(
        &view.period.as_ref().map_or_else(|| "Trial balance".to_owned(), |period| format!("Trial balance of {period}")),
    );
    let query = use_query::<TrialBalance>(Some(view.asked_at("/api/v1/ledger/trial-balance")));
    let refresh = query.refresh.clone();
    use_advance(view.is_live(), refresh.reform(|()| None));
    let currencies = use_state(Vec::<String>::new);
    {
        // With one chosen the answer names only that one; the choice stays.
        let (currencies, data, all) = (currencies.clone(), query.data.clone(), view.currency.is_none());
        use_effect_with(data, move |data| {
            if let (Some(data), true) = (data, all) {
                currencies.set(data.currencies.iter().map(|balances| balances.currency.clone()).collect());
            }
        });
    }
    let mut choices = (*currencies).clone();
    choices.extend(view.currency.clone().filter(|chosen| !currencies.contains(chosen)));

    let content = match (&query.data, &query.error) {
        (Some(balance), error) => {
            html! { <>{ stale(error.as_ref()) }<TrialBalanceTables balance={balance.clone()} view={view.clone()} /></> }
        }
        (None, Some(error)) => problem(error, Some(&refresh.reform(|()| None))),
        (None, None) => loading("the trial balance"),
    };
    html! {
        <>
            { heading(html! { "Trial balance" }, html! { text::sentence(&view.in_words()) }, html! {}) }
            <AsOfPicker {view} {change} currencies={choices} />
            { content }
        </>
    }
}

/// What the tables show.
#[derive(Clone, PartialEq, Properties)]
pub(crate) struct TablesProps {
    pub balance: Rc<TrialBalance>,
    #[prop_or_default]
    pub view: View,
}

/// One table for each currency, debits and credits apart, as an accountant reads it.
#[component]
pub(crate) fn TrialBalanceTables(props: &TablesProps) -> Html {
    let filter = use_state(String::new);
    let all = use_state(|| false);
    let balance = &props.balance;
    let closing = balance.closing.as_ref().map(closing);
    if balance.currencies.is_empty() {
        return match closing {
            Some(closing) => {
                html! { <>{ closing }{ empty("Nothing was booked by then.", html! { "The month was closed with nothing in it." }) }</> }
            }
            None => empty("The ledger is empty.", html! { "Balances appear with the first webhook." }),
        };
    }
    let oninput = {
        let filter = filter.clone();
        Callback::from(move |event: InputEvent| {
            filter.set(event.target_unchecked_into::<HtmlInputElement>().value().trim().to_ascii_lowercase());
        })
    };
    let matching = |balances: &CurrencyBalances| -> Vec<AccountTurnover> {
        balances.accounts.iter().filter(|account| account.account.contains(filter.as_str())).cloned().collect()
    };
    let found: usize = balance.currencies.iter().map(|balances| matching(balances).len()).sum();
    let hidden = found.saturating_sub(if *all { found } else { ROWS_MAX });
    let mut left = found - hidden;
    let tables: Vec<Html> = balance
        .currencies
        .iter()
        .filter_map(|balances| {
            let mut accounts = matching(balances);
            accounts.truncate(left);
            left -= accounts.len();
            (!accounts.is_empty()).then(|| currency_table(balances, &accounts, filter.is_empty(), &props.view))
        })
        .collect();
    let show_all = {
        let all = all.clone();
        Callback::from(move |_: MouseEvent| all.set(true))
    };
    html! {
        <>
            { for closing }
            <div class="toolbar">
                <label class="search"><span class="hidden">{ "Filter accounts" }</span>
                    <input type="search" placeholder="Filter accounts" {oninput} />
                </label>
                <p class="hint">{ format!("At journal position {}.", text::count(balance.position)) }</p>
            </div>
            if tables.is_empty() {
                { empty("No account matches.", html! { <>{ "Filter by a part of its name, such as " }<code>{ "creators" }</code>{ "." }</> }) }
            }
            { for tables }
            if hidden > 0 {
                <div class="pager">
                    <p>{ format!("{} more are not shown. Filter, or", text::counted(hidden as u64, "account")) }</p>
                    <button type="button" onclick={show_all}>{ "Show all" }</button>
                </div>
            }
        </>
    }
}

/// What fixes a closed month: to be compared with what somebody else has.
fn closing(closing: &Closing) -> Html {
    // The first close closes everything before it.
    let which = match &closing.closed_with {
        Some(month) => format!(", with {month}"),
        None if closing.close == 1 => String::new(),
        None => format!(", close {}", closing.close),
    };
    html! {
        <section class="card" aria-labelledby="closing">
            <h2 id="closing">{ format!("{} is closed", closing.period) }</h2>
            { facts(vec![
                fact("Closed", html! { <>{ moment(&closing.closed_at) }{ format!(" by {}{which}", closing.closed_by) }</> }),
                fact("Journal position", html! { text::count(closing.position) }),
                fact("Chain there", html! { <code class="digest">{ closing.chain.clone() }</code> }),
                fact("Digest of the balances", html! { <code class="digest">{ closing.digest.clone() }</code> }),
            ]) }
        </section>
    }
}

fn currency_table(balances: &CurrencyBalances, accounts: &[AccountTurnover], whole: bool, view: &View) -> Html {
    let currency = balances.currency.as_str();
    let root_of = |account: &AccountTurnover| {
        let root = account.account.split(':').next();
        ROOTS.iter().position(|(known, _)| root == Some(*known))
    };
    let names = ROOTS.iter().map(|(_, name)| *name).enumerate().map(|(at, name)| (Some(at), name));
    let groups = names.chain([(None, "Other")]).filter_map(|(root, name)| {
        let of_root: Vec<&AccountTurnover> = accounts.iter().filter(|account| root_of(account) == root).collect();
        (!of_root.is_empty()).then(|| Group {
            heading: Some((html! { name }, html! {})),
            rows: of_root.into_iter().map(|account| row(account, currency, view)).collect(),
        })
    });
    let side = |of: fn(i128) -> i128| -> i128 { accounts.iter().map(|account| of(account.balance_minor.0)).sum() };
    let (debits, credits) = (side(|minor| minor.max(0)), side(|minor| (-minor).max(0)));
    // A part of the accounts need not balance; all of them must, and whether they do is for the reader to see.
    let total = (whole && accounts.len() == balances.accounts.len()).then(|| {
        let verdict = if debits == credits { "Total, balanced" } else { "Total, NOT balanced" };
        vec![Some(html! { verdict }), Some(money(debits, currency)), Some(money(credits, currency))]
    });
    let caption = html! { <><span class="currency">{ text::code(currency) }</span>{ " " }<span class="hint">{ text::counted(accounts.len() as u64, "account") }</span></> };
    html! {
        <section class="card" aria-label={format!("Trial balance in {}", text::code(currency))}>
            { table::view(caption, &[words("Account"), figures("Debit"), figures("Credit")], groups.collect(), total) }
        </section>
    }
}

fn row(account: &AccountTurnover, currency: &str, view: &View) -> Vec<Option<Html>> {
    let minor = account.balance_minor.0;
    let to = Route::Account { account: account.account.clone() };
    let name = html! { <Link {to} view={view.in_currency(currency)}>{ account_name(&account.account) }</Link> };
    let (debit, credit) = if minor >= 0 { (Some(minor), None) } else { (None, Some(-minor)) };
    let cell = |minor: i128| money(minor, currency);
    vec![Some(name), debit.map(cell), credit.map(cell)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fanledger_domain::account::Account;
    use serde_json::json;
    use yew::ServerRenderer;
    use yew_router::Router;
    use yew_router::history::{AnyHistory, MemoryHistory};

    use super::*;

    #[derive(Clone, PartialEq, Properties)]
    struct Props {
        balance: TrialBalance,
    }

    #[component]
    fn Routed(props: &Props) -> Html {
        let history = AnyHistory::from(MemoryHistory::new());
        html! { <Router {history}><TrialBalanceTables balance={Rc::new(props.balance.clone())} /></Router> }
    }

    async fn rendered(balance: TrialBalance) -> String {
        ServerRenderer::<Routed>::with_props(move || Props { balance }).hydratable(false).render().await
    }

    fn account(name: &str, minor: i128) -> serde_json::Value {
        json!({"account": name, "debits_minor": minor.max(0).to_string(), "credits_minor": (-minor).max(0).to_string(), "balance_minor": minor.to_string()})
    }

    fn of(accounts: Vec<serde_json::Value>) -> TrialBalance {
        let kwd = json!({"currency": "kwd", "debits_minor": "12340", "credits_minor": "12340", "accounts": accounts});
        serde_json::from_value(json!({"position": 7, "as_of": null, "currencies": [kwd]})).unwrap()
    }

    /// The tags without their attributes, whose order is not ours.
    fn bare(html: &str) -> String {
        let tags = html.split('<').map(|part| {
            let (tag, text) = part.split_once('>').unwrap_or(("", part));
            let name = tag.split(' ').next().unwrap_or_default();
            if tag.is_empty() { text.to_owned() } else { format!("<{name}>{text}") }
        });
        tags.collect()
    }

    #[tokio::test]
    async fn an_empty_ledger_says_so() {
        let html = rendered(TrialBalance { position: 0, as_of: None, currencies: vec![], closing: None }).await;
        assert!(html.contains("The ledger is empty"), "{html}");
    }

    #[tokio::test]
    async fn amounts_stand_on_their_side_with_their_currencys_decimals() {
        let html =
            rendered(of(vec![account("assets:stripe:clearing", 12_340), account("income:platform-fees", -12_340)]))
                .await;
        let cells = bare(&html);
        assert!(cells.contains("<td><span>12.340</span></td><td></td></tr>"), "{cells}");
        assert!(cells.contains("<td></td><td><span>12.340</span></td></tr>"), "{cells}");
        assert!(html.contains("At journal position 7."), "{html}");
        assert!(html.contains("Total, balanced"), "{html}");
        assert!(html.contains("href=\"/ledger/accounts/assets:stripe:clearing?currency=kwd\""), "{html}");
    }

    #[tokio::test]
    async fn books_that_do_not_balance_are_not_called_balanced() {
        let html = rendered(of(vec![account("assets:bank", 5), account("income:other", -4)])).await;
        assert!(html.contains("Total, NOT balanced"), "{html}");
    }

    /// The first words of whatever reads as an account where the domain writes its chart, which has no list of them.
    fn roots_of_the_domain() -> BTreeSet<&'static str> {
        let chart = include_str!("../../../domain/src/account.rs");
        let accounts = chart.split('"').skip(1).step_by(2).filter(|text| text.parse::<Account>().is_ok());
        accounts.filter_map(|text| text.split(':').next()).collect()
    }

    #[tokio::test]
    async fn every_root_of_the_domain_has_a_group_of_its_own() {
        let roots = roots_of_the_domain();
        assert!(roots.len() >= 5, "{roots:?}");
        for root in roots {
            let html = rendered(of(vec![account(&format!("{root}:x"), 0)])).await;
            assert!(html.contains(&format!(">{}</th>", text::sentence(root))), "{root}: {html}");
            assert!(!html.contains(">Other</th>"), "{root}: {html}");
        }
    }

    #[tokio::test]
    async fn an_account_of_a_root_that_is_not_known_is_shown_all_the_same() {
        let html = rendered(of(vec![account("assets:bank", 5), account("memo:something", -5)])).await;
        assert!(html.contains(">Other</th>"), "{html}");
        assert!(html.contains("href=\"/ledger/accounts/memo:something?currency=kwd\""), "{html}");
        assert!(html.contains("Total, balanced"), "{html}");
    }
}
