//! One entry and what led to it.

use fanledger_gateway_api::{CauseAct, Entry, ManualEntry, ManualEntryState, Side};
use yew::prelude::*;

use crate::as_of::View;
use crate::components::table::{self, figures, words};
use crate::components::{Link, account_name, empty, fact, facts, heading, loading, moment, money_in, problem};
use crate::hooks::{use_query, use_title};
use crate::pages::attribution::{self, AttributionForm};
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
    let reversed_by = query.data.as_ref().and_then(|entry| entry.reversed_by.as_deref());
    let path = reversed_by.map(|id| format!("/api/v1/ledger/manual-entries/{}", segment(id)));
    let reversal = use_query::<ManualEntry>(path);
    let content = match (&query.data, &query.error) {
        (Some(entry), _) => {
            html! { <>{ reversed(entry, reversal.data.as_deref()) }{ reversing(entry) }{ shown(entry) }</> }
        }
        (None, Some(error)) => problem(error, Some(&retry)),
        (None, None) => loading("the entry"),
    };
    let under = query.data.as_ref().map(|entry| html! { entry.description.clone() }).unwrap_or_default();
    let attributing = use_state(|| false);
    let set = |to: bool| {
        let attributing = attributing.clone();
        Callback::from(move |()| attributing.set(to))
    };
    let object = query.data.as_ref().map(|entry| entry.cause.object.clone());
    let to_attribute = object.and_then(|object| Some((attribution::path(&object)?, object)));
    let action = to_attribute.as_ref().map(|_| {
        let onclick = set(true).reform(|_: MouseEvent| ());
        html! { <button type="button" {onclick}>{ "Attribute" }</button> }
    });
    let form = to_attribute.filter(|_| *attributing).map(|(path, object)| {
        let done = set(false).reform(|_: Option<u64>| ());
        html! { <AttributionForm {object} {path} {done} declined={set(false)} /> }
    });
    html! {
        <>
            <p class="crumbs"><Link to={Route::TrialBalance}>{ "Trial balance" }</Link>{ " / entry" }</p>
            { heading(html! { <span class="id">{ props.id.clone() }</span> }, under, action.unwrap_or_default()) }
            { content }
            { for form }
        </>
    }
}

fn entry_link(id: &str) -> Html {
    html! { <Link to={Route::Entry { id: id.to_owned() }} class="id">{ id.to_owned() }</Link> }
}

/// That it does not stand any more, or that somebody wants that. What takes it back may not be known yet.
fn reversed(entry: &Entry, by: Option<&ManualEntry>) -> Html {
    let Some(id) = &entry.reversed_by else { return html! {} };
    let taken = match by.and_then(|by| Some((by, by.entry_id.as_deref()?))) {
        Some((by, entry_id)) => html! {
            <>
                { "This entry was taken back by " }{ entry_link(entry_id) }{ ", as of " }{ moment(&by.occurred_at) }
                { format!(". {}: {}.", by.proposed_by, by.reason.trim_end_matches('.')) }
            </>
        },
        None => html! { <>{ "This entry is taken back by " }<span class="id">{ id.clone() }</span>{ "." }</> },
    };
    let said = match by.map(|by| (by, by.state)) {
        Some((by, ManualEntryState::Proposed)) => html! {
            { format!("{} wants this entry taken back: {}. It stands until a second person agrees.", by.proposed_by, by.reason.trim_end_matches('.')) }
        },
        Some((_, ManualEntryState::Posted | ManualEntryState::Rejected)) | None => taken,
    };
    html! { <p class="stale" role="note">{ said }</p> }
}

/// That it is itself what takes another back.
fn reversing(entry: &Entry) -> Html {
    match entry.cause.act.as_ref().and_then(|act| act.reverses.as_deref()) {
        Some(id) => html! { <p class="stale" role="note">{ "This entry takes back " }{ entry_link(id) }{ "." }</p> },
        None => html! {},
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

/// Who booked it by hand, proposed the payout run that it is of, or said whose money it is; and why.
fn act(act: &CauseAct, is_proposed: bool) -> Html {
    let by = if is_proposed { "Proposed by" } else { "Said by" };
    let mut said = vec![fact(by, html! { act.proposed_by.clone() })];
    said.extend(act.approved_by.clone().map(|who| fact("Approved by", html! { who })));
    said.push(fact("Reason", html! { act.reason.clone() }));
    facts(said)
}

fn cause(entry: &Entry) -> Html {
    let cause = &entry.cause;
    let is_proposed = entry.stream.starts_with("manual_entry/") || entry.stream.starts_with("payout_run/");
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
            { for cause.act.as_ref().map(|it| act(it, is_proposed)) }
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use yew::ServerRenderer;
    use yew_router::Router;
    use yew_router::history::{AnyHistory, MemoryHistory};

    use super::*;

    #[derive(Clone, PartialEq, Properties)]
    struct Props {
        entry: Entry,
        reversal: Option<ManualEntry>,
    }

    #[component]
    fn Notes(props: &Props) -> Html {
        let history = AnyHistory::from(MemoryHistory::new());
        html! { <Router {history}>{ reversed(&props.entry, props.reversal.as_ref()) }{ reversing(&props.entry) }</Router> }
    }

    async fn notes(reversed_by: Option<&str>, reverses: Option<&str>, reversal: Option<serde_json::Value>) -> String {
        let act = json!({"proposed_by": "ana", "approved_by": null, "reason": "booked twice", "reverses": reverses});
        let entry = serde_json::from_value(json!({
            "entry_id": "mne_1:1", "position": 7, "stream": "manual_entry/mne_1", "occurred_at": "2026-06-30T23:00:00Z",
            "effective_at": "2026-06-30T23:00:00Z", "recorded_at": "2026-07-04T12:00:00Z", "description": "interest",
            "cause": {"object": "mne_1", "facts": [], "stripe_events": [], "act": act}, "postings": [],
            "reversed_by": reversed_by,
        }))
        .unwrap();
        let reversal = reversal.map(|reversal| serde_json::from_value(reversal).unwrap());
        ServerRenderer::<Notes>::with_props(move || Props { entry, reversal }).hydratable(false).render().await
    }

    fn reversal(state: &str, entry_id: Option<&str>) -> serde_json::Value {
        json!({"id": "mne_2", "state": state, "description": "", "reason": "booked twice.", "occurred_at": "2026-07-04T12:00:00Z",
            "reverses": "mne_1:1", "postings": [], "needs_approval": false, "proposed_at": "2026-07-04T12:00:00Z",
            "proposed_by": "ben", "decided_at": null, "decided_by": null, "rejection_reason": null, "entry_id": entry_id, "position": 9})
    }

    #[tokio::test]
    async fn an_entry_that_stands_says_nothing_of_it() {
        assert!(!notes(None, None, None).await.contains("role=\"note\""));
    }

    #[tokio::test]
    async fn an_entry_that_was_taken_back_leads_to_what_did_it() {
        let html = notes(Some("mne_2"), None, Some(reversal("posted", Some("mne_2:1")))).await;
        assert!(html.contains("This entry was taken back by "), "{html}");
        assert!(html.contains("href=\"/ledger/entries/mne_2:1\""), "{html}");
        assert!(html.contains("ben: booked twice."), "{html}");
        // It is said at once, before it is known by whom.
        assert!(notes(Some("mne_2"), None, None).await.contains("mne_2"));
    }

    #[tokio::test]
    async fn an_entry_that_waits_to_be_taken_back_stands() {
        let html = notes(Some("mne_2"), None, Some(reversal("proposed", None))).await;
        assert!(html.contains("It stands until a second person agrees."), "{html}");
        assert!(!html.contains("was taken back"), "{html}");
    }

    #[tokio::test]
    async fn a_reversal_leads_to_what_it_takes_back() {
        let html = notes(None, Some("ch_1:3:20260605T230236Z"), None).await;
        assert!(html.contains("This entry takes back "), "{html}");
        assert!(html.contains("href=\"/ledger/entries/ch_1:3:20260605T230236Z\""), "{html}");
    }
}
