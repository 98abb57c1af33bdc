//! One account and what moved it.

use fanledger_gateway_api::{AccountBalances, PostingLine, Side};
use yew::prelude::*;

use crate::as_of::{Axis, View};
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
            { statement(&lines, view.axis().unwrap_or(Axis::Effective)) }
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

fn statement(lines: &Pages<PostingLine>, by: Axis) -> Html {
    let restart = lines.restart.reform(|()| None);
    match (&lines.items, &lines.error) {
        (None, Some(error)) => problem(error, Some(&restart)),
        (None, None) => loading("what moved it"),
        (Some(items), _) if items.is_empty() => {
            empty("Nothing moved it.", html! { "No posting to this account, as asked." })
        }
        (Some(items), error) => {
            let columns =
                [words("What"), words(by.title()), figures("Debit"), figures("Credit"), figures("Balance after")];
            let rows = items.iter().map(|line| row(line, by)).collect();
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

/// When, on the axis that was asked for: the lines are in its order. Beside it, where they differ, the date that explains it: where
/// its month was closed already, an entry counts later than it occurred.
fn when(line: &PostingLine, by: Axis) -> Html {
    let (asked, name, other) = match by {
        Axis::Effective => (&line.effective_at, "occurred ", &line.occurred_at),
        Axis::Occurred => (&line.occurred_at, "effective ", &line.effective_at),
        Axis::Recorded => (&line.recorded_at, "occurred ", &line.occurred_at),
    };
    html! {
        <>
            { moment(asked) }
            if asked != other {
                <span class="sub">{ name }{ moment(other) }</span>
            }
        </>
    }
}

fn row(line: &PostingLine, by: Axis) -> Vec<Option<Html>> {
    let to = Route::Entry { id: line.entry_id.clone() };
    let what = html! {
        <>
            <Link {to}>{ line.description.clone() }</Link>
            <span class="sub">{ format!("position {}", text::count(line.position)) }</span>
        </>
    };
    let amount = || money_in(line.amount_minor.0, &line.currency);
    let (debit, credit) = match line.side {
        Side::Debit => (Some(amount()), None),
        Side::Credit => (None, Some(amount())),
    };
    vec![Some(what), Some(when(line, by)), debit, credit, Some(money_in(line.balance_minor.0, &line.currency))]
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use yew::ServerRenderer;

    use super::*;

    #[derive(Clone, PartialEq, Properties)]
    struct Props {
        line: PostingLine,
        by: &'static str,
    }

    #[component]
    fn When(props: &Props) -> Html {
        let view = View { by: Some(props.by.to_owned()), ..View::default() };
        when(&props.line, view.axis().unwrap())
    }

    #[tokio::test]
    async fn a_line_has_the_date_of_the_axis_that_was_asked_for() {
        let line: PostingLine = serde_json::from_value(json!({
            "entry_id": "ch_1:1", "position": 7, "currency": "usd", "occurred_at": "2026-06-30T23:00:00Z",
            "effective_at": "2026-07-01T00:00:00Z", "recorded_at": "2026-07-04T12:00:00Z", "side": "debit",
            "amount_minor": "5", "balance_minor": "5", "description": "a charge",
            "cause": {"object": "ch_1", "stripe_event": null},
        }))
        .unwrap();
        for (by, first, beside) in [
            ("effective", "2026-07-01 00:00:00", "occurred 2026-06-30 23:00:00"),
            ("occurred", "2026-06-30 23:00:00", "effective 2026-07-01 00:00:00"),
            ("recorded", "2026-07-04 12:00:00", "occurred 2026-06-30 23:00:00"),
        ] {
            let line = line.clone();
            let html = ServerRenderer::<When>::with_props(move || Props { line, by }).hydratable(false).render().await;
            let words = html.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text);
            assert_eq!(words.collect::<String>(), format!("{first}{beside}"), "{by}");
        }
    }
}
