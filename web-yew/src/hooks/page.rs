//! What a page is, to the browser: its title, its address, its pulse.

use std::rc::Rc;

use gloo::timers::callback::{Interval, Timeout};
use yew::prelude::*;
use yew_router::prelude::*;

use crate::as_of::View;
use crate::live::{Live, Told};
use crate::routes::Route;

/// How often at most a page that shows the newest there is asks for it again.
const REFRESH_MS: u32 = 1_000;

/// Names the page in the tab and in the history.
#[hook]
pub(crate) fn use_title(title: &str) {
    use_effect_with(title.to_owned(), |title| {
        gloo::utils::document().set_title(&format!("{title} · Fanledger"));
    });
}

/// What is after `?`, and a way to change it that the back button undoes.
#[hook]
pub(crate) fn use_view() -> (View, Callback<View>) {
    let location = use_location();
    let navigator = use_navigator();
    let route = use_route::<Route>();
    let view = location.and_then(|location| location.query::<View>().ok()).unwrap_or_default();
    let change = Callback::from(move |view: View| {
        if let (Some(navigator), Some(route)) = (&navigator, &route) {
            // It fails only for what cannot be written as a query, and a view can.
            navigator.push_with_query(route, &view).ok();
        }
    });
    (view, change)
}

/// Calls every so often while `wanted` and while the page is looked at.
#[hook]
pub(crate) fn use_interval(milliseconds: u32, wanted: bool, call: Callback<()>) {
    let latest = use_mut_ref(|| call.clone());
    *latest.borrow_mut() = call;
    use_effect_with((milliseconds, wanted), move |(milliseconds, wanted)| {
        let interval = wanted.then(|| {
            Interval::new(*milliseconds, move || {
                if !gloo::utils::document().hidden() {
                    let call = latest.borrow().clone();
                    call.emit(());
                }
            })
        });
        move || drop(interval)
    });
}

/// Calls when any projection has advanced, at most once a second, while `wanted`. Which ones a page is answered from is the
/// gateway's to know; and one that stands still must not keep the others' news from the reader.
#[hook]
pub(crate) fn use_advance(wanted: bool, call: Callback<()>) {
    let live = use_context::<Live>().unwrap_or_default();
    let latest = use_mut_ref(|| call.clone());
    *latest.borrow_mut() = call;
    let timer = use_mut_ref(|| None::<Timeout>);
    let seen = use_mut_ref(|| None::<Rc<Told>>);
    use_effect_with((live.told().cloned(), wanted), move |(told, wanted)| {
        let advanced = *wanted && seen.borrow().is_some() && *told != *seen.borrow();
        if told.is_some() {
            seen.borrow_mut().clone_from(told);
        }
        if advanced && timer.borrow().is_none() {
            let own = Rc::clone(&timer);
            *timer.borrow_mut() = Some(Timeout::new(REFRESH_MS, move || {
                own.borrow_mut().take();
                let call = latest.borrow().clone();
                call.emit(());
            }));
        }
    });
}
