//! One creator's statement, and the entries behind each figure of it.

use fanledger_gateway_api::{CreatorActivity, CreatorCurrency, CreatorLine, CreatorStatement};
use wasm_bindgen::JsCast;
use web_sys::{HtmlElement, HtmlInputElement};
use yew::prelude::*;

use crate::as_of::View;
use crate::components::table::{self, Group, figures, words};
use crate::components::{Link, empty, heading, loading, moment, money, money_in, pager, problem, stale};
use crate::hooks::{page::use_advance, use_pages, use_query, use_title, use_view};
use crate::routes::{Route, segment};
use crate::text;

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct CreatorProps {
    pub creator: AttrValue,
}

/// The page.
#[component]
pub(crate) fn CreatorPage(props: &CreatorProps) -> Html {
    use_title(&props.creator);
    let (view, change) = use_view();
    let path = format!("/api/v1/ledger/creators/{}", segment(&props.creator));
    let month = View::of_month(view.period.clone());
    let query = use_query::<CreatorStatement>(Some(month.asked_at(&format!("{path}/statement"))));
    let refresh = query.refresh.reform(|()| None);
    // What is closed does not change.
    let is_live = query.data.as_ref().is_none_or(|statement| !statement.closed);
    use_advance(is_live, refresh.clone());
    let content = match (&query.data, &query.error) {
        (Some(statement), error) => html! { <>{ stale(error.as_ref()) }{ shown(statement) }</> },
        (None, Some(error)) => problem(error, Some(&refresh)),
        (None, None) => loading("the statement"),
    };
    let is_asked = view.line.is_some() || view.currency.is_some();
    let closed = query.data.as_ref().map(|statement| (statement.closed, statement.closed_with.as_ref()));
    let under = match (&view.period, closed) {
        (None, _) => "Statement from the beginning until now".to_owned(),
        (Some(period), Some((true, Some(with)))) => format!("Statement of {period}, as it was closed with {with}"),
        (Some(period), Some((true, None))) => format!("Statement of {period}, as it was closed"),
        (Some(period), Some((false, _))) => format!("Statement of {period}, which is open and may change"),
        (Some(period), None) => format!("Statement of {period}"),
    };
    let key = view.asked_at("");
    html! {
        <>
            <p class="crumbs"><Link to={Route::Creators}>{ "Creators" }</Link></p>
            { heading(html! { <span class="id">{ props.creator.clone() }</span> }, html! { under }, html! {}) }
            { months(&props.creator, view.period.as_deref(), change) }
            { content }
            if is_asked {
                <Behind {key} {path} {view} {is_live} />
            }
        </>
    }
}

/// Which month: any, the ones beside it, or all.
fn months(creator: &str, period: Option<&str>, change: Callback<View>) -> Html {
    let link = |month: Option<String>, name: Html| {
        let current = month.as_deref() == period;
        html! {
            <Link to={Route::Creator { creator: creator.to_owned() }} view={View::of_month(month)} {current} class="tab">{ name }</Link>
        }
    };
    let beside = |months: i32, arrow: &str| {
        period.and_then(|period| text::month_after(period, months)).map(|month| {
            let name = if months < 0 { format!("{arrow} {month}") } else { format!("{month} {arrow}") };
            link(Some(month), name.into())
        })
    };
    let onchange = change.reform(|event: Event| {
        let month = event.target_unchecked_into::<HtmlInputElement>().value();
        View::of_month(Some(month).filter(|month| !month.is_empty()))
    });
    // Enter is a change, too; there is nothing to be sent.
    let onsubmit = Callback::from(|event: SubmitEvent| event.prevent_default());
    html! {
        <form class="picker" aria-label="Which month" {onsubmit}>
            <label><span>{ "Month" }</span>
                // Some browsers have no field for a month and show one for text.
                <input type="month" pattern="[0-9]{4}-[0-9]{2}" placeholder="2026-10" size="9" value={period.unwrap_or_default().to_owned()} {onchange} />
            </label>
            { for beside(-1, "‹") }
            { for beside(1, "›") }
            { link(None, html! { "All months" }) }
        </form>
    }
}

fn shown(statement: &CreatorStatement) -> Html {
    if statement.currencies.is_empty() {
        return empty("Nothing was booked by then.", html! { "There is no entry of this creator’s up to there." });
    }
    html! { <>{ for statement.currencies.iter().map(|currency| currency_table(statement, currency)) }</> }
}

/// What leads to the entries behind a figure.
fn to_entries(
    statement: &CreatorStatement,
    currency: &str,
    line: Option<&str>,
    kind: Option<&str>,
    name: Html,
) -> Html {
    let view = View {
        line: line.map(str::to_owned),
        kind: kind.map(str::to_owned),
        ..View::of_month(statement.period.clone()).in_currency(currency)
    };
    html! { <Link to={Route::Creator { creator: statement.creator.clone() }} {view}>{ name }</Link> }
}

fn currency_table(statement: &CreatorStatement, of: &CreatorCurrency) -> Html {
    let currency = of.currency.as_str();
    let closing = &of.closing;
    let buckets = [
        ("pending", closing.pending_minor.0),
        ("available", closing.available_minor.0),
        ("held", closing.held_minor.0),
        ("receivable", -closing.receivable_minor.0),
    ];
    let code = html! { <span class="currency">{ text::code(currency) }</span> };
    let figures_of_lines = of.lines.iter().map(|line| line.amount_minor.0);
    if figures_of_lines.chain(buckets.map(|(_, minor)| minor)).chain([of.opening_minor.0]).all(|minor| minor == 0) {
        // As where a charge stood in its own currency until its settlement in another was known.
        let name = format!("{} that cancel", text::counted_entries(of.entries));
        return html! { <p>{ code }{ ": " }{ to_entries(statement, currency, None, None, name.into()) }{ "." }</p> };
    }
    let before = statement.period.as_deref().and_then(|period| text::month_after(period, -1));
    let opening = before.map(|month| {
        let (to, view) = (Route::Creator { creator: statement.creator.clone() }, View::of_month(Some(month)));
        let amount = html! { <Link {to} {view}>{ money(of.opening_minor.0, currency) }</Link> };
        vec![Some(html! { "Opening balance" }), None, Some(amount)]
    });
    let lines = of.lines.iter().flat_map(|line| rows(statement, currency, line));
    let closing = vec![
        Some(html! { <strong>{ "Closing balance" }</strong> }),
        None,
        Some(html! { <strong>{ money_in(of.closing_minor.0, currency) }</strong> }),
    ];
    let where_it_is = buckets.into_iter().filter(|(_, minor)| *minor != 0).map(|(bucket, minor)| {
        let (root, name) =
            if bucket == "receivable" { ("assets", "owed by the creator") } else { ("liabilities", bucket) };
        let to = Route::Account { account: format!("{root}:creators:{}:{bucket}", statement.creator) };
        // The account as of the same: a closed month by its close, an open one up to its end.
        let view = if statement.closed {
            View::of_month(statement.period.clone())
        } else {
            View { as_of: statement.to.clone(), ..View::default() }
        };
        let amount = html! { <Link {to} view={view.in_currency(currency)}>{ money(minor, currency) }</Link> };
        vec![Some(html! { <span class="part">{ name }</span> }), None, Some(amount)]
    });
    let group = |rows: Vec<Vec<Option<Html>>>| Group { heading: None, rows };
    let groups = vec![
        group(opening.into_iter().collect()),
        group(lines.collect()),
        group([closing].into_iter().chain(where_it_is).collect()),
    ];
    html! {
        <section class="card statement" aria-label={format!("Statement in {}", text::code(currency))}>
            { table::view(code, &[words("Line"), figures("Entries"), figures("Amount")], groups, None) }
        </section>
    }
}

/// A line, and what it is of by what was paid for. Each statement has the same lines; an adjustment is worth one where there is one.
fn rows(statement: &CreatorStatement, currency: &str, line: &CreatorLine) -> Vec<Vec<Option<Html>>> {
    if line.entries == 0 && line.line == "adjustments" {
        return Vec::new();
    }
    let row = |name: Html, kind: Option<&str>, entries: u64, minor: i128| {
        let amount = money(minor, currency);
        // Where there is nothing there is nothing to lead to.
        let amount =
            if entries == 0 { amount } else { to_entries(statement, currency, Some(&line.line), kind, amount) };
        vec![Some(name), Some(html! { text::count(entries) }), Some(amount)]
    };
    let mut rows = vec![row(text::sentence(&text::words(&line.line)).into(), None, line.entries, line.amount_minor.0)];
    if line.kinds.iter().any(|kind| kind.kind.is_some()) {
        rows.extend(line.kinds.iter().map(|kind| {
            let (name, asked) = kind.kind.as_deref().map_or(("no payment", "none"), |kind| (kind, kind));
            let name = html! { <span class="part">{ name.to_owned() }</span> };
            row(name, Some(asked), kind.entries, kind.amount_minor.0)
        }));
    }
    rows
}

#[derive(Clone, PartialEq, Properties)]
struct BehindProps {
    path: String,
    view: View,
    is_live: bool,
}

/// The entries behind a figure; together they are the figure.
#[component]
fn Behind(props: &BehindProps) -> Html {
    let BehindProps { path, view, is_live } = props;
    let pages = use_pages::<CreatorActivity>(view.asked_at(&format!("{path}/activity")));
    let restart = pages.restart.reform(|()| None);
    use_advance(*is_live && pages.is_at_the_top(), restart.clone());
    use_effect_with((), |()| {
        // It stands below the statement: whoever asked for it is led there.
        let title = gloo::utils::document().get_element_by_id("entries");
        if let Some(title) = title.and_then(|title| title.dyn_into::<HtmlElement>().ok()) {
            title.focus().ok();
        }
    });
    let asked = [view.line.as_deref().map(text::words), view.kind.clone(), view.currency.as_deref().map(text::code)];
    let title = format!("Entries behind: {}", asked.into_iter().flatten().collect::<Vec<_>>().join(", "));
    let content = match (&pages.items, &pages.error) {
        (None, Some(error)) => problem(error, Some(&restart)),
        (None, None) => loading("the entries"),
        (Some(items), _) if items.is_empty() => empty("No entry.", html! { "Nothing was booked that is so." }),
        (Some(items), error) => {
            let columns = [words("What"), words("Effective"), figures("Amount")];
            html! {
                <>
                    <section class="card" aria-label="Entries">
                        { table::plain(html! { "Newest first" }, &columns, items.iter().map(entry).collect()) }
                    </section>
                    { stale(error.as_ref()) }
                    { pager(items.len(), "line", pages.has_more, pages.asking, &pages.more) }
                </>
            }
        }
    };
    html! { <><h2 id="entries" tabindex="-1">{ title }</h2>{ content }</> }
}

fn entry(entry: &CreatorActivity) -> Vec<Option<Html>> {
    let kind = entry.kind.as_ref().map(|kind| format!(", {kind}")).unwrap_or_default();
    let what = html! {
        <>
            <Link to={Route::Entry { id: entry.entry_id.clone() }}>{ entry.description.clone() }</Link>
            <span class="sub">{ format!("{}{kind}, position {}", text::words(&entry.line), text::count(entry.position)) }</span>
        </>
    };
    let when = html! {
        <>
            { moment(&entry.effective_at) }
            if entry.effective_at != entry.occurred_at {
                <span class="sub">{ "occurred " }{ moment(&entry.occurred_at) }</span>
            }
        </>
    };
    vec![Some(what), Some(when), Some(money_in(entry.amount_minor.0, &entry.currency))]
}
