//! Signing in with a token that was minted: pasted, or brought by a link's fragment, which no server sees.

use gloo::events::EventListener;
use web_sys::HtmlTextAreaElement;
use yew::prelude::*;
use yew_router::prelude::*;

use crate::components::shell::brand;
use crate::hooks::use_title;
use crate::routes::Route;
use crate::session::{self, Session, SessionAction, SessionHandle, TokenFault};

/// The token after `#`, which is taken out of the address (and of the history) at once.
fn token_of_fragment() -> Option<String> {
    let window = gloo::utils::window();
    let fragment = window.location().hash().ok()?;
    let token = fragment.strip_prefix('#').filter(|token| !token.is_empty())?.to_owned();
    let path = window.location().pathname().ok()?;
    let history = window.history().ok()?;
    // yew-router keeps its own state with each entry; the entry stays the same one.
    let state = history.state().unwrap_or_default();
    history.replace_state_with_url(&state, "", Some(&path)).ok()?;
    Some(token)
}

/// The form.
#[component]
pub(crate) fn SignIn() -> Html {
    use_title("Sign in");
    let sessions = use_context::<SessionHandle>();
    let navigator = use_navigator();
    let page = use_route::<Route>();
    let fault = use_state(|| None::<TokenFault>);
    let field = use_node_ref();

    let sign_in = {
        let (sessions, fault) = (sessions.clone(), fault.clone());
        Callback::from(move |text: String| match Session::of_token(&text, session::now()) {
            Ok(session) => {
                if let Some(sessions) = &sessions {
                    sessions.dispatch(SessionAction::SignIn(session));
                }
                // Elsewhere the page that was asked for appears in this one's place.
                if let (Some(navigator), Some(Route::SignIn)) = (&navigator, &page) {
                    navigator.replace(&Route::Home);
                }
            }
            Err(refused) => fault.set(Some(refused)),
        })
    };
    {
        let sign_in = sign_in.clone();
        use_effect_with((), move |()| {
            let take = move || token_of_fragment().into_iter().for_each(|token| sign_in.emit(token));
            take();
            // A link that is followed while this page is open changes nothing but the fragment.
            let listener = EventListener::new(&gloo::utils::window(), "hashchange", move |_| take());
            move || drop(listener)
        });
    }
    let onsubmit = {
        let field = field.clone();
        Callback::from(move |event: SubmitEvent| {
            event.prevent_default();
            if let Some(field) = field.cast::<HtmlTextAreaElement>() {
                sign_in.emit(field.value());
            }
        })
    };
    // Enter signs in: a token has one line.
    let onkeydown = Callback::from(|event: KeyboardEvent| {
        if event.key() == "Enter" {
            event.prevent_default();
            if let Ok(Some(form)) = event.target_unchecked_into::<HtmlTextAreaElement>().closest("form") {
                let form: web_sys::HtmlFormElement = wasm_bindgen::JsCast::unchecked_into(form);
                form.request_submit().ok();
            }
        }
    });
    let notice = sessions.as_ref().and_then(|sessions| sessions.notice.clone());
    let error = fault.map(|fault| fault.to_string());
    html! {
        <main class="sign-in">
            <div class="sign-in-card">
                <p class="brand">{ brand() }{ "Fanledger" }</p>
                <h1 id="heading" tabindex="-1">{ "Sign in" }</h1>
                if let Some(notice) = notice {
                    <p class="stale" role="status">{ notice }</p>
                }
                <form {onsubmit}>
                    <label for="token">{ "Token" }</label>
                    <textarea ref={field} id="token" rows="4" spellcheck="false" autocomplete="off" autocapitalize="off" required=true
                        aria-describedby="token-help" aria-invalid={error.is_some().then_some("true")} {onkeydown} />
                    if let Some(error) = error {
                        <p class="field-error" role="alert">{ error }</p>
                    }
                    <p id="token-help" class="hint">
                        { "Mint one where the command line is: " }<code>{ "fanledger token mint --role finance" }</code>
                        { ". It stays in this tab and is gone when the tab is closed." }
                    </p>
                    <button type="submit" class="primary wide">{ "Sign in" }</button>
                </form>
            </div>
        </main>
    }
}
