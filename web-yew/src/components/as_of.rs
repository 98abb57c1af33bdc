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
    Month,
}

impl Moment {
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Now, "now", "Now"),
        (Self::Instant, "instant", "At an instant"),
        (Self::Position, "position", "At a position"),
        (Self::Month, "month", "A closed month"),
    ];

    fn of(view: &View) -> Self {
        match view.as_of.as_deref() {
            _ if view.period.is_some() => Self::Month,
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
            if chosen == Moment::Now && !view.is_live() {
                change.emit(View { as_of: None, period: None, ..view.clone() });
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
            let given = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
            let (as_of, period) = match moment {
                Moment::Now => (None, None),
                Moment::Instant => (instant_of_field(&text), None),
                Moment::Position => (given, None),
                Moment::Month => (None, given),
            };
            if moment == Moment::Now || as_of.is_some() || period.is_some() {
                // A closed month is by effective date, and by no other.
                let by = if period.is_some() { None } else { view.by.clone() };
                change.emit(View { as_of, period, by, ..view.clone() });
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
            if *moment != Moment::Month {
                <label><span>{ "By" }</span>
                    <select onchange={choose_axis}>
                        { for Axis::ALL.into_iter().map(|axis| html! { <option value={axis.as_str()} selected={asked == Some(axis)}>{ axis.title() }</option> }) }
                    </select>
                </label>
            }
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
    // What the address says, where it is about the moment that is chosen.
    let said = if Moment::of(view) == moment { view.as_of.as_ref().or(view.period.as_ref()) } else { None };
    let said = said.cloned().unwrap_or_default();
    let (name, kind, pattern, value) = match moment {
        Moment::Now => return html! {},
        Moment::Instant => ("Instant, UTC", "datetime-local", None, field_of_instant(&said)),
        Moment::Position => ("Journal position", "text", Some("[0-9]+"), said),
        // Some browsers have no field for a month and show one for text.
        Moment::Month => ("Month", "month", Some("[0-9]{4}-[0-9]{2}"), said),
    };
    html! {
        <>
            <label><span>{ name }</span>
                <input ref={field.clone()} type={kind} {pattern} required=true size="9" {value} key={name} />
            </label>
            <button type="submit" class="primary">{ "Show" }</button>
        </>
    }
}
