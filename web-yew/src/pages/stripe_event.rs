//! One webhook: what became of it, who looked into it, and its body, which is opened by an act with a reason.

use fanledger_gateway_api::{InboxItem, InboxStatus, OpenedStripeEvent, Opening};
use serde_json::json;
use web_sys::HtmlInputElement;
use yew::prelude::*;

use crate::client::{Answered, ApiError};
use crate::components::icon::{self, Icon};
use crate::components::table::{self, words};
use crate::components::toast::Say;
use crate::components::{Link, badge, fact, facts, heading, hint, loading, moment, problem, stale};
use crate::hooks::{use_command, use_query, use_title, use_view};
use crate::routes::{Route, segment};
use crate::text;

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct StripeEventProps {
    pub id: AttrValue,
    /// Whether the button to open it is shown; the gateway decides.
    pub may_open: bool,
}

/// The page.
#[component]
pub(crate) fn StripeEventPage(props: &StripeEventProps) -> Html {
    use_title(&format!("Webhook {}", props.id));
    let (view, _) = use_view();
    let path = format!("/api/v1/ledger/stripe-events/{}", segment(&props.id));
    let query = use_query::<InboxItem>(Some(path.clone()));
    let opened = {
        let refresh = query.refresh.clone();
        // The opening itself is on the list of who looked.
        Callback::from(move |position: Option<u64>| refresh.emit(position))
    };
    let retry = query.refresh.reform(|()| None);
    let content = match (&query.data, &query.error) {
        (Some(item), error) => html! {
            <>
                { stale(error.as_ref()) }
                { envelope(item) }
                { openings(&item.openings) }
                if props.may_open {
                    <Body path={path.clone()} from={view.from.clone()} {opened} />
                } else {
                    <section class="card"><h2>{ "Its body" }</h2>{ hint("It may hold personal data and is opened by finance only.") }</section>
                }
            </>
        },
        (None, Some(error)) => problem(error, Some(&retry)),
        (None, None) => loading("the webhook"),
    };
    let under = query.data.as_ref().and_then(|item| item.event_type.clone()).unwrap_or_default();
    let crumbs = match &view.from {
        Some(from) => html! { <Link to={Route::Entry { id: from.clone() }}>{ "Entry" }</Link> },
        None => html! { "Stripe" },
    };
    html! {
        <>
            <p class="crumbs">{ crumbs }{ " / webhook" }</p>
            { heading(html! { <span class="id">{ props.id.clone() }</span> }, html! { under }, html! {}) }
            { content }
        </>
    }
}

fn status(item: &InboxItem) -> Html {
    let (tone, word) = match item.status {
        InboxStatus::Pending => ("warn", "pending"),
        InboxStatus::Translated => ("good", "translated"),
        InboxStatus::Known => ("plain", "known already"),
        InboxStatus::NotTranslated => ("plain", "not translated"),
    };
    html! { <>{ badge(tone, word) }if item.raised { { " " }{ badge("bad", "somebody should look") } }</> }
}

fn envelope(item: &InboxItem) -> Html {
    let mut said = vec![
        fact("What became of it", status(item)),
        fact(
            "Led to",
            html! { format!("{}, {}", text::counted(item.facts, "fact"), text::counted_entries(item.entries)) },
        ),
        fact(
            "Object",
            item.object
                .as_ref()
                .map(|id| html! { <span class="id">{ id.clone() }</span> })
                .unwrap_or_else(|| html! { "not read" }),
        ),
        fact("Made at Stripe", item.created.as_deref().map(moment).unwrap_or_else(|| html! { "not read" })),
        fact("Received", moment(&item.received_at)),
        fact("Journal position", html! { text::count(item.position) }),
        fact("API version", html! { item.api_version.clone().unwrap_or_else(|| "not read".to_owned()) }),
    ];
    let optional = [
        ("Connected account", item.account.clone()),
        ("Why no facts", item.reason.as_deref().map(text::words)),
        ("In words", item.detail.clone()),
        ("Flag", item.flag.clone()),
    ];
    said.extend(optional.into_iter().filter_map(|(name, value)| Some(fact(name, html! { value? }))));
    if item.differing_bodies > 0 {
        let times = format!("{} with another body", text::counted(item.differing_bodies, "time"));
        said.push(fact("Came again", html! { times }));
    }
    html! { <section class="card" aria-labelledby="envelope"><h2 id="envelope">{ "What is known of it" }</h2>{ facts(said) }</section> }
}

/// Who looked, when and why.
fn openings(openings: &[Opening]) -> Html {
    if openings.is_empty() {
        return html! {};
    }
    let rows = openings.iter().map(|opening| {
        vec![Some(html! { opening.by.clone() }), Some(moment(&opening.at)), Some(html! { opening.reason.clone() })]
    });
    let columns = [words("Who"), words("When"), words("Why")];
    html! {
        <section class="card" aria-label="Who read its body">
            { table::plain(html! { "Who read its body" }, &columns, rows.collect()) }
        </section>
    }
}

#[derive(Clone, PartialEq, Properties)]
struct BodyProps {
    path: String,
    from: Option<String>,
    opened: Callback<Option<u64>>,
}

/// The body, sealed until it is opened; gone from the page when the page is left.
#[component]
fn Body(props: &BodyProps) -> Html {
    let body = use_state(|| None::<OpenedStripeEvent>);
    let say = use_context::<Say>();
    let done = {
        let (body, opened) = (body.clone(), props.opened.clone());
        Callback::from(move |answered: Answered<OpenedStripeEvent>| {
            body.set(Some(answered.value));
            opened.emit(answered.position);
            if let Some(say) = &say {
                say.say("Opened. That you looked, and why, is in the journal.");
            }
        })
    };
    let command = use_command(done);
    let reason = use_node_ref();
    let onsubmit = {
        let (reason, send, path) = (reason.clone(), command.send.clone(), props.path.clone());
        Callback::from(move |event: SubmitEvent| {
            event.prevent_default();
            let text = reason.cast::<HtmlInputElement>().map(|field| field.value()).unwrap_or_default();
            send.emit((format!("{path}/open"), json!({ "reason": text.trim() })));
        })
    };
    let suggested = props.from.as_ref().map(|entry| format!("Tracing entry {entry}")).unwrap_or_default();
    let content = match (&*body, command.error.as_ref()) {
        (Some(opened), _) => shown(opened),
        (None, Some(error)) if error.kind() == Some("body-erased") => erased(error),
        (None, error) => html! {
            <form class="open" {onsubmit}>
                <p class="sealed">{ icon::view(Icon::Lock) }{ "The body is sealed: it may hold personal data. Opening it is recorded with your name and your reason." }</p>
                <label><span>{ "Reason" }</span>
                    <input ref={reason} type="text" required=true maxlength="500" value={suggested} autocomplete="off" />
                </label>
                <button type="submit" class="primary" disabled={command.running}>{ if command.running { "Opening …" } else { "Open" } }</button>
                if let Some(error) = error {
                    { problem(error, None) }
                }
            </form>
        },
    };
    html! { <section class="card" aria-labelledby="body"><h2 id="body">{ "Its body" }</h2>{ content }</section> }
}

fn erased(error: &ApiError) -> Html {
    html! {
        <div class="empty" role="status">
            <p class="empty-title">{ "Erased." }</p>
            <p>{ "Its key was destroyed, so nobody can read it any more. What it led to is in the ledger, and the journal’s chain is whole." }</p>
            <p class="hint">{ error.to_string() }</p>
        </div>
    }
}

fn shown(opened: &OpenedStripeEvent) -> Html {
    let body = opened.body.as_ref().map(|body| text::indented(body.get()));
    html! {
        <>
            { facts(vec![
                fact("Opened", html! { <>{ moment(&opened.opened_at) }{ format!(" by {}", opened.opened_by) }</> }),
                fact("SHA-256", html! { <code class="digest">{ opened.sha256.clone() }</code> }),
                fact("Size", html! { text::counted(opened.bytes, "byte") }),
            ]) }
            if let Some(body) = body {
                <pre class="json" tabindex="0" aria-label="The body, as Stripe sent it">{ body }</pre>
            } else {
                { hint("It is no JSON; as base64:") }
                <pre class="json" tabindex="0" aria-label="The body in base64">{ opened.body_base64.clone().unwrap_or_default() }</pre>
            }
        </>
    }
}
