//! Questions before something is done. The browser's own dialog: it keeps the focus, and Escape closes it.

use web_sys::HtmlDialogElement;
use yew::prelude::*;

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct ModalProps {
    pub title: AttrValue,
    pub children: Html,
    /// It was closed by Escape.
    pub declined: Callback<()>,
}

/// A dialog, shown as long as it is rendered.
#[component]
pub(crate) fn Modal(props: &ModalProps) -> Html {
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
    let oncancel = props.declined.reform(|_: Event| ());
    html! {
        <dialog ref={dialog} aria-labelledby="dialog-title" {oncancel}>
            <h2 id="dialog-title">{ props.title.clone() }</h2>
            { props.children.clone() }
        </dialog>
    }
}

/// Asks whether an act shall be done. `meaning` says what happens and how it is undone; the button says the act, not "yes".
pub(crate) fn confirm(
    title: String,
    meaning: &'static str,
    act: &'static str,
    agreed: &Callback<()>,
    declined: &Callback<()>,
) -> Html {
    let agree = agreed.reform(|_: MouseEvent| ());
    let decline = declined.reform(|_: MouseEvent| ());
    html! {
        <Modal {title} declined={declined.clone()}>
            <p>{ meaning }</p>
            <div class="actions">
                <button type="button" onclick={decline}>{ "Cancel" }</button>
                <button type="button" class="primary" onclick={agree}>{ act }</button>
            </div>
        </Modal>
    }
}
