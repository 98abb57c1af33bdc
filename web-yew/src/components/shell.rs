//! What is around every page.

use wasm_bindgen::JsCast;
use web_sys::HtmlElement;
use yew::prelude::*;
use yew_router::prelude::*;

use crate::components::icon::{self, Icon};
use crate::components::link::Link;
use crate::live::Live;
use crate::routes::Route;
use crate::session::{Area, Session, SessionAction, SessionHandle};
use crate::text;
use crate::theme::ThemeSwitch;

/// The menu, by who works with it.
fn menu(session: &Session) -> Vec<(Route, Icon, &'static str)> {
    let mut menu = vec![(Route::Home, Icon::Home, "Home")];
    if session.may(Area::Finance) {
        menu.extend([
            (Route::TrialBalance, Icon::Scales, "Trial balance"),
            (Route::Creators, Icon::People, "Creators"),
            (Route::Periods, Icon::Calendar, "Periods"),
            (Route::Suspense, Icon::Question, "Suspense"),
            (Route::Awaited, Icon::Hourglass, "Awaited"),
        ]);
    }
    if session.may(Area::Operations) {
        menu.push((Route::Projections, Icon::Layers, "Projections"));
    }
    menu
}

/// Which entry of the menu a page is under.
fn is_under(page: &Route, entry: &Route) -> bool {
    let menu_of = match page {
        Route::Account { .. } | Route::Entry { .. } | Route::StripeEvent { .. } => &Route::TrialBalance,
        Route::Creator { .. } => &Route::Creators,
        Route::Projection { .. } => &Route::Projections,
        other => other,
    };
    menu_of == entry
}

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct ShellProps {
    pub session: Session,
    pub children: Html,
}

/// The menu, the page, and how far the projections are.
#[component]
pub(crate) fn Shell(props: &ShellProps) -> Html {
    let page = use_route::<Route>().unwrap_or(Route::NotFound);
    let sessions = use_context::<SessionHandle>();
    let live = use_context::<Live>().unwrap_or_default();
    {
        // Another page: its heading is read out, and Tab goes on from there. Not at first, where the browser's own begins.
        let is_first = use_mut_ref(|| true);
        use_effect_with(page.clone(), move |_| {
            if !is_first.replace(false) {
                let heading = gloo::utils::document().get_element_by_id("heading");
                if let Some(heading) = heading.and_then(|heading| heading.dyn_into::<HtmlElement>().ok()) {
                    heading.focus().ok();
                }
                gloo::utils::window().scroll_to_with_x_and_y(0.0, 0.0);
            }
        });
    }
    let leave = Callback::from(move |_: MouseEvent| {
        if let Some(sessions) = &sessions {
            sessions.dispatch(SessionAction::SignOut(None));
        }
    });
    let entries = menu(&props.session).into_iter().map(|(to, picture, name)| {
        let current = is_under(&page, &to);
        html! { <li><Link {to} {current}>{ icon::view(picture) }<span>{ name }</span></Link></li> }
    });
    html! {
        <div class="shell">
            <a class="skip" href="#heading">{ "Skip to the page" }</a>
            <header class="bar">
                <Link to={Route::Home} class="brand">{ brand() }{ "Fanledger" }</Link>
                <div class="bar-end">
                    <p class="who">
                        <span class="subject">{ props.session.subject.clone() }</span>
                        <span class="roles">{ props.session.roles.join(", ") }</span>
                    </p>
                    <ThemeSwitch />
                    <button type="button" class="icon-button" onclick={leave} aria-label="Sign out" title="Sign out">
                        { icon::view(Icon::Leave) }
                    </button>
                </div>
            </header>
            <nav class="menu" aria-label="Pages"><ul>{ for entries }</ul></nav>
            <main id="main">{ props.children.clone() }</main>
            <footer class="foot">
                if props.session.may_follow() {
                    <p>{ position(&live, &props.session) }</p>
                }
                <p>{ "All times are UTC." }</p>
            </footer>
        </div>
    }
}

/// How far the projections are, and who keeps them from being further. Operators are led to where they can do something about it.
fn position(live: &Live, session: &Session) -> Html {
    let Some(position) = live.position() else { return html! { "Asking for the journal’s position …" } };
    let at = text::count(position);
    let dot = |tone: &'static str| html! { <span class={classes!("dot", tone)} aria-hidden="true" /> };
    match (live.is_heard(), live.holding_back()) {
        (false, _) => {
            html! { <>{ dot("bad") }{ format!("The gateway is not heard; last at journal position {at}.") }</> }
        }
        (true, []) => html! { <>{ dot("good") }{ format!("Live, at journal position {at}.") }</> },
        (true, names) => {
            let names = names.iter().enumerate().map(|(number, name)| {
                let comma = if number == 0 { "" } else { ", " };
                let to = Route::Projection { name: name.clone() };
                let name = name.clone();
                let name = if session.may(Area::Operations) {
                    html! { <Link {to}>{ name }</Link> }
                } else {
                    name.into()
                };
                html! { <>{ comma }{ name }</> }
            });
            html! {
                <>
                    { dot("warn") }{ format!("Held back at journal position {at} by ") }{ for names }
                    { format!("; the others are at {}.", text::count(live.furthest())) }
                </>
            }
        }
    }
}

/// Two sides that balance.
pub(crate) fn brand() -> Html {
    html! {
        <svg class="brand-mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
            <rect class="ground" width="32" height="32" rx="7" />
            <path d="M8 9h7M8 15h7M8 21h7M20 9h4M20 15h4M20 21h4M17.5 6v20" />
        </svg>
    }
}
