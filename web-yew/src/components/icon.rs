//! Pictures, drawn here: nothing is fetched for them. All are decoration beside a text.

use yew::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Icon {
    Home,
    Scales,
    People,
    Calendar,
    Question,
    Hourglass,
    Layers,
    Sun,
    Moon,
    Contrast,
    Leave,
    Lock,
}

/// The picture, as large as the text around it.
pub(crate) fn view(icon: Icon) -> Html {
    let path = match icon {
        Icon::Home => "M3 11 12 4l9 7M6 9.5V20h12V9.5M10 20v-6h4v6",
        Icon::Scales => "M12 4v16M7 20h10M5 7h14M5 7l-3 7a3.2 3.2 0 0 0 6 0zM19 7l-3 7a3.2 3.2 0 0 0 6 0z",
        Icon::People => "M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM4 21c0-4 3-6.5 8-6.5s8 2.5 8 6.5",
        Icon::Calendar => "M4 6h16v14H4zM4 10.5h16M8 3v4M16 3v4M9 15.5l2 2 4-4",
        Icon::Question => {
            "M9 9a3 3 0 1 1 4.2 2.7c-.8.4-1.2 1-1.2 1.8v.5M12 17.5v.1M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z"
        }
        Icon::Hourglass => "M7 3h10M7 21h10M8 3v4l4 5-4 5v4M16 3v4l-4 5 4 5v4",
        Icon::Layers => "m12 3 9 5-9 5-9-5zM3 12.5l9 5 9-5M3 17l9 5 9-5",
        Icon::Sun => {
            "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5"
        }
        Icon::Moon => "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
        Icon::Contrast => "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
        Icon::Leave => "M14 4h5v16h-5M10 8l-4 4 4 4M6 12h9",
        Icon::Lock => "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
    };
    html! {
        <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d={path} /></svg>
    }
}
