//! A question before something is done. The browser's own dialog: it keeps the focus, and Escape closes it.

use web_sys::HtmlDialogElement;
use yew::prelude::*;

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct ConfirmProps {
    pub title: AttrValue,
    /// What happens, and how it is undone.
    pub children: Html,
    /// What the button says: the act, not "yes".
    pub act: AttrValue,
    pub agreed: Callback<()>,
    pub declined: Callback<()>,
}

/// Shown as long as it is rendered.
#[component]
pub(crate) fn Confirm(props: &ConfirmProps) -> Html {
    let dialog = use_node_ref();
    {
        let dialog = dialog.clone();
        use_effect_with((), move |()| {
            if let Some(dialog) = dialog.cast::<HtmlDialogElement>() {
                // It fails only for a dialog that is open, or not in the page.
                dialog.show_modal().ok();
            }
        });
    }
    let agreed = props.agreed.reform(|_: MouseEvent| ());
    let declined = props.declined.reform(|_: MouseEvent| ());
    let oncancel = props.declined.reform(|_: Event| ());
    html! {
        <dialog ref={dialog} aria-labelledby="confirm-title" {oncancel}>
            <h2 id="confirm-title">{ props.title.clone() }</h2>
            { props.children.clone() }
            <div class="actions">
                <button type="button" onclick={declined}>{ "Cancel" }</button>
                <button type="button" class="primary" onclick={agreed}>{ props.act.clone() }</button>
            </div>
        </dialog>
    }
}
