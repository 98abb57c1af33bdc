//! One account and what moved it.

use fanledger_gateway_api::{AccountBalances, PostingLine, Side};
use yew::prelude::*;

use crate::as_of::View;
use crate::components::as_of::AsOfPicker;
use crate::components::table::{self, figures, words};
use crate::components::{Link, account_name, empty, heading, loading, moment, money, money_in, pager, problem, stale};
use crate::hooks::{Pages, page::use_advance, use_pages, use_query, use_title, use_view};
use crate::routes::{Route, segment};
use crate::text;

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct AccountProps {
    pub account: AttrValue,
}

/// The page.
#[component]
pub(crate) fn AccountPage(props: &AccountProps) -> Html {
    use_title(&props.account);
    let (view, change) = use_view();
    let path = format!("/api/v1/ledger/accounts/{}", segment(&props.account));
    // An account is asked in all its currencies, so that the others are a click away.
    let balances = use_query::<AccountBalances>(Some(view.in_all_currencies().asked_at(&path)));
    let lines = use_pages::<PostingLine>(view.asked_at(&format!("{path}/postings")));
    let advance = {
        let (balances, restart, at_the_top) = (balances.refresh.clone(), lines.restart.clone(), lines.is_at_the_top());
        Callback::from(move |()| {
            balances.emit(None);
            if at_the_top {
                restart.emit(None);
            }
        })
    };
    use_advance(view.is_live(), advance);

    let summary = match (&balances.data, &balances.error) {
        (Some(data), error) => html! { <>{ stale(error.as_ref()) }{ summary(data, &view) }</> },
        (None, Some(_)) => html! {},
        (None, None) => loading("the balances"),
    };
    html! {
        <>
            <p class="crumbs"><Link to={Route::TrialBalance} view={view.in_all_currencies()}>{ "Trial balance" }</Link></p>
            { heading(account_name(&props.account), html! { text::sentence(&view.in_words()) }, html! {}) }
            <AsOfPicker view={view.clone()} {change} />
            { summary }
            { statement(&lines) }
        </>
    }
}

/// The balance in each currency, each the way to its lines.
fn summary(data: &AccountBalances, view: &View) -> Html {
    let all = html! {
        <li><Link to={Route::Account { account: data.account.clone() }} view={view.in_all_currencies()} current={view.currency.is_none()} class="tab">
            <span class="tab-name">{ "All" }</span></Link></li>
    };
    let each = data.currencies.iter().map(|balance| {
        let minor = balance.balance_minor.0;
        let side = if minor < 0 { "credit" } else { "debit" };
        html! {
            <li>
                <Link to={Route::Account { account: data.account.clone() }} view={view.in_currency(&balance.currency)}
                    current={view.currency.as_ref() == Some(&balance.currency)} class="tab">
                    <span class="tab-name">{ text::code(&balance.currency) }</span>{ " " }
                    { money(minor.abs(), &balance.currency) }{ " " }<span class="hint">{ side }</span>
                </Link>
            </li>
        }
    });
    html! { <ul class="tabs" aria-label="Balance by currency">{ all }{ for each }</ul> }
}

fn statement(lines: &Pages<PostingLine>) -> Html {
    let restart = lines.restart.reform(|()| None);
    match (&lines.items, &lines.error) {
        (None, Some(error)) => problem(error, Some(&restart)),
        (None, None) => loading("what moved it"),
        (Some(items), _) if items.is_empty() => {
            empty("Nothing moved it.", html! { "No posting to this account, as asked." })
        }
        (Some(items), error) => {
            let columns =
                [words("What"), words("Effective"), figures("Debit"), figures("Credit"), figures("Balance after")];
            let rows = items.iter().map(row).collect();
            html! {
                <>
                    <section class="card" aria-label="What moved it">
                        { table::plain(html! { "What moved it, newest first" }, &columns, rows) }
                    </section>
                    { stale(error.as_ref()) }
                    { pager(items.len(), "posting", lines.has_more, lines.asking, &lines.more) }
                </>
            }
        }
    }
}

fn row(line: &PostingLine) -> Vec<Option<Html>> {
    let to = Route::Entry { id: line.entry_id.clone() };
    let what = html! {
        <>
            <Link {to}>{ line.description.clone() }</Link>
            <span class="sub">{ format!("position {}", text::count(line.position)) }</span>
        </>
    };
    let amount = || money_in(line.amount_minor.0, &line.currency);
    // Mostly they are the same; where its month was closed already, an entry counts later than it occurred.
    let when = html! {
        <>
            { moment(&line.effective_at) }
            if line.effective_at != line.occurred_at {
                <span class="sub">{ "occurred " }{ moment(&line.occurred_at) }</span>
            }
        </>
    };
    let (debit, credit) = match line.side {
        Side::Debit => (Some(amount()), None),
        Side::Credit => (None, Some(amount())),
    };
    vec![Some(what), Some(when), debit, credit, Some(money(line.balance_minor.0, &line.currency))]
}
