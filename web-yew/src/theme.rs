//! Light or dark: as the system says, unless the reader said otherwise.

use gloo::storage::{LocalStorage, Storage};
use yew::prelude::*;

use crate::components::icon::{self, Icon};

const KEPT_AS: &str = "fanledger.theme";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    System,
    Light,
    Dark,
}

impl Theme {
    const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::System => Self::Light,
            Self::Light => Self::Dark,
            Self::Dark => Self::System,
        }
    }

    fn kept() -> Self {
        let name: Option<String> = LocalStorage::get(KEPT_AS).ok();
        [Self::Light, Self::Dark]
            .into_iter()
            .find(|theme| Some(theme.name()) == name.as_deref())
            .unwrap_or(Self::System)
    }

    fn apply(self) {
        if let Some(root) = gloo::utils::document().document_element() {
            root.set_attribute("data-theme", self.name()).ok();
        }
    }
}

/// As the reader last said.
pub(crate) fn apply_kept() {
    Theme::kept().apply();
}

/// Goes from one to the next.
#[component]
pub(crate) fn ThemeSwitch() -> Html {
    let theme = use_state(Theme::kept);
    let onclick = {
        let theme = theme.clone();
        Callback::from(move |_: MouseEvent| {
            let next = theme.next();
            LocalStorage::set(KEPT_AS, next.name()).ok();
            next.apply();
            theme.set(next);
        })
    };
    let shape = match *theme {
        Theme::System => Icon::Contrast,
        Theme::Light => Icon::Sun,
        Theme::Dark => Icon::Moon,
    };
    let label = format!("Colours: {}. Change", theme.name());
    html! {
        <button type="button" class="icon-button" {onclick} aria-label={label.clone()} title={label}>{ icon::view(shape) }</button>
    }
}
