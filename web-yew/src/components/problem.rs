//! That something was refused or failed, and what to do.

use yew::prelude::*;

use crate::client::ApiError;

/// The problem as the gateway tells it: its title, this occurrence, the fields that are wrong, the number to name to support; and
/// a button to try again, where that may help.
pub(crate) fn problem(error: &ApiError, retry: Option<&Callback<()>>) -> Html {
    let retry = retry.map(|retry| {
        let onclick = retry.reform(|_: MouseEvent| ());
        html! { <button type="button" {onclick}>{ "Try again" }</button> }
    });
    html! {
        <div class="problem" role="alert">
            <p class="problem-title">{ error.to_string() }</p>
            { more(error) }
            { for retry }
        </div>
    }
}

fn more(error: &ApiError) -> Html {
    let ApiError::Refused(problem) = error else { return html! {} };
    let fields = problem.errors.iter().map(|field| {
        html! { <li><code>{ field.field.clone() }</code>{ ": " }{ field.message.clone() }</li> }
    });
    html! {
        <>
            if problem.errors.is_empty() {
                <p>{ problem.detail.clone().unwrap_or_default() }</p>
            } else {
                <ul>{ for fields }</ul>
            }
            if let Some(id) = &problem.request_id {
                <p class="hint">{ "Request " }<code>{ id.clone() }</code></p>
            }
        </>
    }
}

/// Above what is still shown: that it is not the newest, because it could not be asked for again.
pub(crate) fn stale(error: Option<&ApiError>) -> Html {
    match error {
        Some(error) => html! { <p class="stale" role="status">{ format!("Not brought up to date: {error}") }</p> },
        None => html! {},
    }
}
