//! A link to a page.

use yew::prelude::*;
use yew_router::prelude::*;

use crate::as_of::View;
use crate::routes::Route;

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct LinkProps {
    pub to: Route,
    /// What is after `?`.
    #[prop_or_default]
    pub view: View,
    #[prop_or_default]
    pub class: Classes,
    /// It leads to where the reader is.
    #[prop_or_default]
    pub current: bool,
    #[prop_or_default]
    pub children: Html,
}

/// A link that stays within the app; opened in another tab as any link can be. yew-router's own cannot say `aria-current`.
#[component]
pub(crate) fn Link(props: &LinkProps) -> Html {
    let navigator = use_navigator();
    let href = props.view.linked_at(&props.to.to_path());
    let onclick = {
        let (to, view) = (props.to.clone(), props.view.clone());
        Callback::from(move |event: MouseEvent| {
            let elsewhere = event.meta_key() || event.ctrl_key() || event.shift_key() || event.alt_key();
            if let (Some(navigator), false) = (&navigator, elsewhere) {
                event.prevent_default();
                if view == View::default() {
                    navigator.push(&to);
                } else {
                    navigator.push_with_query(&to, &view).ok();
                }
            }
        })
    };
    let current = props.current.then_some("page");
    html! { <a class={props.class.clone()} {href} {onclick} aria-current={current}>{ props.children.clone() }</a> }
}
