//! Short messages that say what was done, and go by themselves.

use std::rc::Rc;

use gloo::timers::callback::Timeout;
use yew::prelude::*;

const SHOWN_MS: u32 = 6_000;

/// The messages that are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Toasts {
    next: u64,
    shown: Vec<(u64, AttrValue)>,
}

pub(crate) enum ToastAction {
    Say(AttrValue),
    Forget(u64),
}

impl Reducible for Toasts {
    type Action = ToastAction;

    fn reduce(self: Rc<Self>, action: ToastAction) -> Rc<Self> {
        let mut toasts = (*self).clone();
        match action {
            ToastAction::Say(text) => {
                toasts.shown.push((toasts.next, text));
                toasts.next += 1;
            }
            ToastAction::Forget(number) => toasts.shown.retain(|(shown, _)| *shown != number),
        }
        Rc::new(toasts)
    }
}

/// Says something, from context.
#[derive(Clone, PartialEq)]
pub(crate) struct Say(pub UseReducerDispatcher<Toasts>);

impl Say {
    pub(crate) fn say(&self, text: impl Into<AttrValue>) {
        self.0.dispatch(ToastAction::Say(text.into()));
    }
}

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct ToastProps {
    pub toasts: UseReducerHandle<Toasts>,
}

/// Where they are shown; read out when they come.
#[component]
pub(crate) fn ToastArea(props: &ToastProps) -> Html {
    let items = props.toasts.shown.iter().map(|(number, text)| {
        let (number, dispatcher) = (*number, props.toasts.dispatcher());
        let gone = Callback::from(move |()| dispatcher.dispatch(ToastAction::Forget(number)));
        html! { <Toast key={number.to_string()} text={text.clone()} {gone} /> }
    });
    html! { <div class="toasts" role="status" aria-live="polite">{ for items }</div> }
}

#[derive(Clone, PartialEq, Properties)]
struct OneProps {
    text: AttrValue,
    gone: Callback<()>,
}

#[component]
fn Toast(props: &OneProps) -> Html {
    let gone = props.gone.clone();
    use_effect_with((), move |()| {
        let timeout = Timeout::new(SHOWN_MS, move || gone.emit(()));
        move || drop(timeout)
    });
    html! { <p class="toast">{ props.text.clone() }</p> }
}
