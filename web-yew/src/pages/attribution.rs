//! Saying whose money something is.

use fanledger_gateway_api::AttributionReceipt;
use serde_json::{Map, Value};
use web_sys::{HtmlInputElement, HtmlSelectElement};
use yew::prelude::*;

use crate::client::Answered;
use crate::components::confirm::Modal;
use crate::components::problem;
use crate::components::toast::Say;
use crate::hooks::use_command;
use crate::routes::segment;
use crate::text;

/// Where an attribution of this object is posted; none where nobody's word can settle it.
pub(crate) fn path(object: &str) -> Option<String> {
    let (prefix, _) = object.split_once('_')?;
    let kind = match prefix {
        "ch" | "py" => "charges",
        "tr" => "transfers",
        "fee" => "application-fees",
        _ => return None,
    };
    Some(format!("/api/v1/ledger/{kind}/{}/attribution", segment(object)))
}

/// What can be said beyond the creator, of a payment.
fn is_payment(object: &str) -> bool {
    object.starts_with("ch_") || object.starts_with("py_")
}

/// What was paid for; nothing where nothing is to change, which has to be said to be selected: yew adds options from the last to the
/// first, and a browser keeps the one that came first.
const KINDS: [(&str, &str); 4] =
    [("", "As it stands"), ("subscription", "Subscription"), ("tip", "Tip"), ("unlock", "Unlock")];

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct AttributionProps {
    pub object: String,
    /// Where it is posted.
    pub path: String,
    /// It was done, as of this position.
    pub done: Callback<Option<u64>>,
    pub declined: Callback<()>,
}

/// The form.
#[component]
pub(crate) fn AttributionForm(props: &AttributionProps) -> Html {
    let say = use_context::<Say>();
    let done = {
        let done = props.done.clone();
        Callback::from(move |answered: Answered<AttributionReceipt>| {
            let receipt = &answered.value;
            let entries = receipt.entries.len() as u64;
            if let Some(say) = &say {
                let slip = if receipt.changed && receipt.creator_is_new {
                    " The books held nothing of that creator before: if the id is a slip, attribute it again."
                } else {
                    ""
                };
                let told = match (receipt.changed, entries) {
                    (false, _) => format!("{} was attributed so already.", receipt.object),
                    (true, 0) => format!("{} is attributed; no balance changes by it now.", receipt.object),
                    (true, 1) => format!("{} is attributed; 1 entry was posted.", receipt.object),
                    (true, _) => {
                        format!("{} is attributed; {} entries were posted.", receipt.object, text::count(entries))
                    }
                };
                say.say(format!("{told}{slip}"));
            }
            done.emit(answered.position);
        })
    };
    let command = use_command(done);
    let fields = [use_node_ref(), use_node_ref(), use_node_ref(), use_node_ref(), use_node_ref()];
    let share = use_node_ref();
    let kind = use_node_ref();
    let onsubmit = {
        let (fields, kind, share) = (fields.clone(), kind.clone(), share.clone());
        let (path, send) = (props.path.clone(), command.send.clone());
        Callback::from(move |event: SubmitEvent| {
            event.prevent_default();
            let mut body: Map<String, Value> = ["creator", "reason", "fan", "tax_minor", "tax_jurisdiction"]
                .into_iter()
                .zip(&fields)
                .filter_map(|(name, field)| Some((name.to_owned(), field.cast::<HtmlInputElement>()?.value())))
                .filter(|(_, value)| !value.trim().is_empty())
                .map(|(name, value)| (name, value.trim().into()))
                .collect();
            let chosen = kind.cast::<HtmlSelectElement>().map(|field| field.value()).unwrap_or_default();
            if !chosen.is_empty() {
                body.insert("kind".to_owned(), chosen.into());
            }
            let share = share.cast::<HtmlInputElement>().and_then(|field| field.value().trim().parse::<u16>().ok());
            if let Some(bps) = share {
                body.insert("creator_share_bps".to_owned(), bps.into());
            }
            send.emit((path.clone(), body.into()));
        })
    };
    let decline = props.declined.reform(|_: MouseEvent| ());
    let [creator, reason, fan, tax, jurisdiction] = fields;
    html! {
        <Modal title="Whose money is it?" declined={props.declined.clone()}>
            <form class="open" {onsubmit}>
                <p class="hint">
                    <span class="id">{ props.object.clone() }</span>
                    { ". Your word beats what Stripe says of it, and the last word stands. The books follow at the date it happened." }
                </p>
                <label><span>{ "Creator" }</span>
                    <input ref={creator} type="text" required=true pattern="crt_[A-Za-z0-9_\\-]{1,64}" placeholder="crt_…" autocomplete="off" spellcheck="false" />
                </label>
                if is_payment(&props.object) {
                    <label><span>{ "Fan, if known" }</span>
                        <input ref={fan} type="text" pattern="fan_[A-Za-z0-9_\\-]{1,64}" placeholder="fan_…" autocomplete="off" spellcheck="false" />
                    </label>
                    <label><span>{ "Paid for" }</span>
                        <select ref={kind}>{ for KINDS.into_iter().map(|(value, name)| html! { <option {value} selected={value.is_empty()}>{ name }</option> }) }</select>
                    </label>
                    <details>
                        <summary>{ "Tax and share, where what stands is wrong" }</summary>
                        <label><span>{ "Tax in it, in the smallest unit" }</span>
                            <input ref={tax} type="text" inputmode="numeric" pattern="[0-9]{1,15}" title="A whole number: 250 is 2.50 USD" placeholder="250 is 2.50 USD" autocomplete="off" />
                        </label>
                        <label><span>{ "Whose tax" }</span>
                            <input ref={jurisdiction} type="text" pattern="[a-z0-9\\-]{1,32}" placeholder="us-ca" autocomplete="off" spellcheck="false" />
                        </label>
                        <label><span>{ "Creator's share, in hundredths of a percent" }</span>
                            <input ref={share} type="text" inputmode="numeric" pattern="10000|[0-9]{1,4}" title="A whole number from 0 to 10000: 8000 is 80 %" placeholder="8000 is 80 %" autocomplete="off" />
                        </label>
                    </details>
                }
                <label><span>{ "Reason" }</span>
                    <input ref={reason} type="text" required=true maxlength="500" autocomplete="off" />
                </label>
                <p class="hint">{ "The reason stays in the journal for good: name no person in it." }</p>
                if let Some(error) = &command.error {
                    { problem(error, None) }
                }
                <div class="actions">
                    <button type="button" onclick={decline}>{ "Cancel" }</button>
                    <button type="submit" class="primary" disabled={command.running}>{ "Attribute" }</button>
                </div>
            </form>
        </Modal>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_attributed_has_a_path() {
        assert_eq!(path("ch_1").as_deref(), Some("/api/v1/ledger/charges/ch_1/attribution"));
        assert_eq!(path("py_1").as_deref(), Some("/api/v1/ledger/charges/py_1/attribution"));
        assert_eq!(path("tr_1").as_deref(), Some("/api/v1/ledger/transfers/tr_1/attribution"));
        assert_eq!(path("fee_1").as_deref(), Some("/api/v1/ledger/application-fees/fee_1/attribution"));
        for object in ["re_1", "txn_1", "chx_1", "ch", ""] {
            assert_eq!(path(object), None, "{object}");
        }
    }
}
