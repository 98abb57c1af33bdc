//! From an address to a page, and who may see it.

use std::cell::Cell;
use std::rc::Rc;

use gloo::timers::future::TimeoutFuture;
use wasm_bindgen_futures::spawn_local;
use yew::prelude::*;
use yew_router::prelude::*;

use crate::client::Client;
use crate::components::shell::Shell;
use crate::components::toast::{Say, ToastArea, Toasts};
use crate::live::{Live, use_stream};
use crate::pages;
use crate::routes::Route;
use crate::session::{self, Area, Session, SessionAction, SessionHandle};

/// What is told when the gateway does not take the token any more.
const REFUSED: &str = "Your token is not accepted any more: it has expired, or its key was changed. Sign in again.";
/// What is told at a token's end.
const ENDED: &str = "Your token has expired. Sign in again.";

/// The app.
#[component]
pub fn App() -> Html {
    html! { <BrowserRouter><Signed /></BrowserRouter> }
}

/// What all pages share: the session, its client, its stream, the messages.
#[component]
fn Signed() -> Html {
    let sessions = use_reducer(session::kept);
    let toasts = use_reducer(Toasts::default);
    let current = sessions.current.clone();
    let refused = {
        let sessions = sessions.dispatcher();
        Callback::from(move |()| sessions.dispatch(SessionAction::SignOut(Some(REFUSED.into()))))
    };
    let client = Client::new(current.as_ref(), refused);
    let live = use_stream(&client, current.as_ref().is_some_and(Session::may_follow));
    {
        let sessions = sessions.dispatcher();
        use_effect_with(current.clone(), move |current| {
            let is_over = Rc::new(Cell::new(false));
            if let Some(session) = current.clone() {
                let is_over = Rc::clone(&is_over);
                spawn_local(async move {
                    // Again and again: no timer reaches a month.
                    while let Some(wait_ms) = session.wait_ms(session::now()) {
                        TimeoutFuture::new(wait_ms).await;
                        if is_over.get() {
                            return;
                        }
                    }
                    sessions.dispatch(SessionAction::SignOut(Some(ENDED.into())));
                });
            }
            move || is_over.set(true)
        });
    }
    let page = use_route::<Route>().unwrap_or(Route::NotFound);
    let content = match (&current, &page) {
        // In place of whatever page it is: after signing in it is there.
        (None, _) | (_, Route::SignIn) => html! { <pages::sign_in::SignIn /> },
        (Some(session), _) => html! { <Shell session={session.clone()}>{ page_of(session, &page) }</Shell> },
    };
    html! {
        <ContextProvider<SessionHandle> context={sessions.clone()}>
        <ContextProvider<Client> context={client}>
        <ContextProvider<Live> context={live}>
        <ContextProvider<Say> context={Say(toasts.dispatcher())}>
            { content }
            <ToastArea {toasts} />
        </ContextProvider<Say>>
        </ContextProvider<Live>>
        </ContextProvider<Client>>
        </ContextProvider<SessionHandle>>
    }
}

/// Who works with a page; nobody in particular where there is none.
fn area(page: &Route) -> Option<Area> {
    match page {
        Route::Home | Route::SignIn | Route::NotFound => None,
        Route::TrialBalance
        | Route::Account { .. }
        | Route::Entry { .. }
        | Route::Creators
        | Route::Creator { .. }
        | Route::Periods
        | Route::Suspense
        | Route::Awaited => Some(Area::Finance),
        // Operators see what became of a webhook, and never its body.
        Route::StripeEvent { .. } => None,
        Route::Projections | Route::Projection { .. } => Some(Area::Operations),
    }
}

fn page_of(session: &Session, page: &Route) -> Html {
    if let Some(area) = area(page).filter(|area| !session.may(*area)) {
        return html! { <pages::no_access::NoAccess {area} /> };
    }
    // The key: another account is another page, not the same one with other content.
    let key = page.to_path();
    match page.clone() {
        Route::Home | Route::SignIn => html! { <pages::home::Home {key} session={session.clone()} /> },
        Route::TrialBalance => html! { <pages::trial_balance::TrialBalancePage {key} /> },
        Route::Account { account } => html! { <pages::account::AccountPage {key} {account} /> },
        Route::Entry { id } => html! { <pages::entry::EntryPage {key} {id} /> },
        Route::Creators => html! { <pages::creators::CreatorsPage {key} /> },
        Route::Creator { creator } => html! { <pages::creator::CreatorPage {key} {creator} /> },
        Route::Periods => html! { <pages::periods::PeriodsPage {key} /> },
        Route::Suspense => html! { <pages::suspense::SuspensePage {key} /> },
        Route::Awaited => html! { <pages::awaited::AwaitedPage {key} /> },
        Route::StripeEvent { id } => {
            html! { <pages::stripe_event::StripeEventPage {key} {id} may_open={session.may(Area::Finance)} /> }
        }
        Route::Projections => html! { <pages::projections::ProjectionsPage {key} /> },
        Route::Projection { name } => html! { <pages::projection::ProjectionPage {key} {name} /> },
        Route::NotFound => html! { <pages::no_access::NoPage {key} /> },
    }
}
