//! One entry and what led to it.

use fanledger_gateway_api::{CauseAct, Entry, Side};
use yew::prelude::*;

use crate::as_of::View;
use crate::components::table::{self, figures, words};
use crate::components::{Link, account_name, empty, fact, facts, heading, loading, moment, money_in, problem};
use crate::hooks::{use_query, use_title};
use crate::routes::{Route, segment};
use crate::text;

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct EntryProps {
    pub id: AttrValue,
}

/// The page.
#[component]
pub(crate) fn EntryPage(props: &EntryProps) -> Html {
    use_title(&format!("Entry {}", props.id));
    let query = use_query::<Entry>(Some(format!("/api/v1/ledger/entries/{}", segment(&props.id))));
    let retry = query.refresh.reform(|()| None);
    let content = match (&query.data, &query.error) {
        (Some(entry), _) => shown(entry),
        (None, Some(error)) => problem(error, Some(&retry)),
        (None, None) => loading("the entry"),
    };
    let under = query.data.as_ref().map(|entry| html! { entry.description.clone() }).unwrap_or_default();
    html! {
        <>
            <p class="crumbs"><Link to={Route::TrialBalance}>{ "Trial balance" }</Link>{ " / entry" }</p>
            { heading(html! { <span class="id">{ props.id.clone() }</span> }, under, html! {}) }
            { content }
        </>
    }
}

fn shown(entry: &Entry) -> Html {
    html! {
        <>
            <section class="card" aria-label="Postings">{ postings(entry) }</section>
            <div class="columns">
                <section class="card" aria-labelledby="cause">
                    <h2 id="cause">{ "What led to it" }</h2>
                    { cause(entry) }
                </section>
                <section class="card" aria-labelledby="when">
                    <h2 id="when">{ "When and where" }</h2>
                    { facts(vec![
                        fact("Occurred", moment(&entry.occurred_at)),
                        fact("Effective", moment(&entry.effective_at)),
                        fact("Recorded", moment(&entry.recorded_at)),
                        fact("Journal position", html! { text::count(entry.position) }),
                        fact("Stream", html! { <code>{ entry.stream.clone() }</code> }),
                    ]) }
                </section>
            </div>
        </>
    }
}

fn postings(entry: &Entry) -> Html {
    let rows = entry.postings.iter().map(|posting| {
        let to = Route::Account { account: posting.account.clone() };
        let account = html! { <Link {to} view={View::default().in_currency(&posting.currency)}>{ account_name(&posting.account) }</Link> };
        let amount = money_in(posting.amount_minor.0, &posting.currency);
        let (debit, credit) = match posting.side {
            Side::Debit => (Some(amount), None),
            Side::Credit => (None, Some(amount)),
        };
        vec![Some(account), debit, credit]
    });
    table::plain(html! { "Postings" }, &[words("Account"), figures("Debit"), figures("Credit")], rows.collect())
}

/// Who booked it by hand, and why.
fn act(act: &CauseAct) -> Html {
    let mut said = vec![fact("Proposed by", html! { act.proposed_by.clone() })];
    said.extend(act.approved_by.clone().map(|who| fact("Approved by", html! { who })));
    said.push(fact("Reason", html! { act.reason.clone() }));
    said.extend(
        act.reverses.clone().map(|id| {
            fact("Takes back", html! { <Link to={Route::Entry { id: id.clone() }} class="id">{ id }</Link> })
        }),
    );
    facts(said)
}

fn cause(entry: &Entry) -> Html {
    let cause = &entry.cause;
    let events = cause.stripe_events.iter().map(|event| {
        let at = event.position.map(|position| format!("position {}", text::count(position)));
        html! {
            <li>
                <Link to={Route::StripeEvent { id: event.id.clone() }} class="id"
                    view={View { from: Some(entry.entry_id.clone()), ..View::default() }}>{ event.id.clone() }</Link>
                <span class="sub">{ at.unwrap_or_default() }</span>
            </li>
        }
    });
    let learnt = cause.facts.iter().map(|fact| {
        html! { <li>{ fact.fact.clone() }<span class="sub">{ format!("number {} of its stream, position {}", fact.sequence, text::count(fact.position)) }</span></li> }
    });
    html! {
        <>
            { facts(vec![fact("Object", html! { <span class="id">{ cause.object.clone() }</span> })]) }
            { for cause.act.as_ref().map(act) }
            <h3>{ "Webhooks" }</h3>
            if cause.stripe_events.is_empty() {
                { empty("No webhook.", html! { "It was led to by something that was fetched from Stripe, or by an act of finance." }) }
            } else {
                <ul class="plain">{ for events }</ul>
            }
            <h3>{ "Facts learnt" }</h3>
            if cause.facts.is_empty() {
                { empty("No new fact.", html! { "The books were evaluated again over what was known." }) }
            } else {
                <ul class="plain">{ for learnt }</ul>
            }
        </>
    }
}
