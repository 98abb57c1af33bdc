//! Small things that every page has.

use yew::prelude::*;

use crate::text;

/// The page's heading, which takes the focus when the page is come to: so a screen reader says where one is.
pub(crate) fn heading(title: Html, under: Html, beside: Html) -> Html {
    html! {
        <header class="page-heading">
            <div>
                <h1 id="heading" tabindex="-1">{ title }</h1>
                <p class="under">{ under }</p>
            </div>
            { beside }
        </header>
    }
}

/// The place of what is coming. Its lines appear only if it takes a moment.
pub(crate) fn loading(what: &str) -> Html {
    html! {
        <div class="loading" role="status">
            <span class="hidden">{ format!("Loading {what}") }</span>
            { for (0..4).map(|_| html! { <div class="loading-line" /> }) }
        </div>
    }
}

/// That there is nothing, and what that means.
pub(crate) fn empty(title: &str, meaning: Html) -> Html {
    html! { <div class="empty"><p class="empty-title">{ title.to_owned() }</p><p>{ meaning }</p></div> }
}

/// A word on a ground of its own; `tone` is `good`, `warn`, `bad` or `plain`.
pub(crate) fn badge(tone: &'static str, word: &str) -> Html {
    html! { <span class={classes!("badge", tone)}>{ word.to_owned() }</span> }
}

/// One name and its value.
pub(crate) fn fact(name: &str, value: Html) -> Html {
    html! { <div class="fact"><dt>{ name.to_owned() }</dt><dd>{ value }</dd></div> }
}

/// Names and values.
pub(crate) fn facts(facts: Vec<Html>) -> Html {
    html! { <dl class="facts">{ for facts }</dl> }
}

/// A word of help.
pub(crate) fn hint(text: &str) -> Html {
    html! { <p class="hint">{ text.to_owned() }</p> }
}

/// How much of a list is shown, and the way to the rest.
pub(crate) fn pager(shown: usize, one: &str, has_more: bool, asking: bool, more: &Callback<()>) -> Html {
    let count = text::counted(shown as u64, one);
    let onclick = more.reform(|_: MouseEvent| ());
    html! {
        <div class="pager">
            <p role="status">{ if has_more { format!("{count} shown, there are more.") } else { format!("{count}, that is all.") } }</p>
            if has_more {
                <button type="button" {onclick} disabled={asking}>{ if asking { "Loading …" } else { "Show more" } }</button>
            }
        </div>
    }
}
