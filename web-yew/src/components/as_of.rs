//! As of when, by which time, in which currency: a form that changes the page's address.

use web_sys::{HtmlInputElement, HtmlSelectElement};
use yew::prelude::*;

use crate::as_of::{Axis, View, field_of_instant, instant_of_field};
use crate::text;

/// What the form says of the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Now,
    Instant,
    Position,
}

impl Moment {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Now, "now", "Now"),
        (Self::Instant, "instant", "At an instant"),
        (Self::Position, "position", "At a position"),
    ];

    fn of(view: &View) -> Self {
        match view.as_of.as_deref() {
            None => Self::Now,
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => Self::Position,
            Some(_) => Self::Instant,
        }
    }

    fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|(_, value, _)| *value == name).map_or(Self::Now, |(moment, ..)| moment)
    }
}

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct AsOfProps {
    pub view: View,
    pub change: Callback<View>,
    /// The currencies to choose from; none where there is no choice.
    #[prop_or_default]
    pub currencies: Vec<String>,
}

/// The form. "Now" is applied at once; an instant or a position when it is given.
#[component]
pub(crate) fn AsOfPicker(props: &AsOfProps) -> Html {
    let moment = use_state(|| Moment::of(&props.view));
    {
        // The back button changes the address under it.
        let moment = moment.clone();
        use_effect_with(props.view.clone(), move |view| moment.set(Moment::of(view)));
    }
    let field = use_node_ref();
    let choose_moment = {
        let (moment, view, change) = (moment.clone(), props.view.clone(), props.change.clone());
        Callback::from(move |event: Event| {
            let chosen = Moment::named(&event.target_unchecked_into::<HtmlSelectElement>().value());
            moment.set(chosen);
            if chosen == Moment::Now && view.as_of.is_some() {
                change.emit(View { as_of: None, ..view.clone() });
            }
        })
    };
    let choose = |set: fn(&View, String) -> View| {
        let (view, change) = (props.view.clone(), props.change.clone());
        Callback::from(move |event: Event| {
            change.emit(set(&view, event.target_unchecked_into::<HtmlSelectElement>().value()));
        })
    };
    let choose_axis = choose(|view, by| View { by: (by != Axis::Effective.as_str()).then_some(by), ..view.clone() });
    let choose_currency =
        choose(|view, currency| View { currency: (!currency.is_empty()).then_some(currency), ..view.clone() });
    let submit = {
        let (field, moment, view, change) = (field.clone(), *moment, props.view.clone(), props.change.clone());
        Callback::from(move |event: SubmitEvent| {
            event.prevent_default();
            let text = field.cast::<HtmlInputElement>().map(|field| field.value()).unwrap_or_default();
            let as_of = match moment {
                Moment::Now => None,
                Moment::Instant => instant_of_field(&text),
                Moment::Position => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            };
            if moment == Moment::Now || as_of.is_some() {
                change.emit(View { as_of, ..view.clone() });
            }
        })
    };
    let asked = props.view.axis();
    html! {
        <form class="picker" aria-label="As of" onsubmit={submit}>
            <label><span>{ "As of" }</span>
                <select onchange={choose_moment}>
                    { for Moment::ALL.into_iter().map(|(of, value, name)| html! { <option {value} selected={*moment == of}>{ name }</option> }) }
                </select>
            </label>
            { moment_field(*moment, &props.view, &field) }
            <label><span>{ "By" }</span>
                <select onchange={choose_axis}>
                    { for Axis::ALL.into_iter().map(|axis| html! { <option value={axis.as_str()} selected={asked == Some(axis)}>{ axis.title() }</option> }) }
                </select>
            </label>
            if !props.currencies.is_empty() {
                <label><span>{ "Currency" }</span>
                    <select onchange={choose_currency}>
                        <option value="" selected={props.view.currency.is_none()}>{ "All" }</option>
                        { for props.currencies.iter().map(|code| html! {
                            <option value={code.clone()} selected={props.view.currency.as_ref() == Some(code)}>{ text::code(code) }</option>
                        }) }
                    </select>
                </label>
            }
        </form>
    }
}

fn moment_field(moment: Moment, view: &View, field: &NodeRef) -> Html {
    let as_of = view.as_of.clone().unwrap_or_default();
    match moment {
        Moment::Now => html! {},
        Moment::Instant => {
            let value = if Moment::of(view) == Moment::Instant { field_of_instant(&as_of) } else { String::new() };
            html! {
                <>
                    <label><span>{ "Instant, UTC" }</span><input ref={field.clone()} type="datetime-local" required=true {value} key="instant" /></label>
                    <button type="submit" class="primary">{ "Show" }</button>
                </>
            }
        }
        Moment::Position => {
            let value = if Moment::of(view) == Moment::Position { as_of } else { String::new() };
            html! {
                <>
                    <label><span>{ "Journal position" }</span>
                        <input ref={field.clone()} type="text" inputmode="numeric" pattern="[0-9]+" required=true size="9" {value} key="position" />
                    </label>
                    <button type="submit" class="primary">{ "Show" }</button>
                </>
            }
        }
    }
}
