//! Pages that are not there, or not for this token.

use yew::prelude::*;

use crate::components::{Link, heading};
use crate::hooks::use_title;
use crate::routes::Route;
use crate::session::Area;

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct NoAccessProps {
    pub area: Area,
}

/// The page is another role's.
#[component]
pub(crate) fn NoAccess(props: &NoAccessProps) -> Html {
    use_title("Not for this token");
    let role = match props.area {
        Area::Finance => "finance",
        Area::Operations => "operator",
    };
    let under = html! { <>{ "This page needs a token with the role " }<strong>{ role }</strong>{ " or " }<strong>{ "admin" }</strong>{ "." }</> };
    html! {
        <>
            { heading(html! { "Not for this token" }, under, html! {}) }
            <p><Link to={Route::Home}>{ "Go to the first page" }</Link></p>
        </>
    }
}

/// There is no such page.
#[component]
pub(crate) fn NoPage() -> Html {
    use_title("No such page");
    html! {
        <>
            { heading(html! { "No such page" }, html! { "The address leads nowhere." }, html! {}) }
            <p><Link to={Route::Home}>{ "Go to the first page" }</Link></p>
        </>
    }
}
