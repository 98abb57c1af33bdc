//! The single-page app: what finance and operators look at.
//!
//! Read in this order:
//! 1. [`routes`]: every page's address. [`app`]: from an address to a page, and who may see it.
//! 2. `pages/`: one file per page; it asks through hooks and shows through components.
//! 3. [`client`]: the one place that speaks HTTP; [`session`]: whose token; [`live`]: how far the projections are.
//! 4. `hooks/`: asking and acting from a page. `components/`: what pages are made of.
//! 5. [`text`], [`as_of`], [`proof`]: what is computed, with no browser, and tested natively.
//!
//! Invariants:
//! - Holds no rule that the gateway does not enforce. Roles are read from the token for menus only.
//! - The address says everything about what is shown (account, as-of, axis, currency), so a link is a finding that can be sent.
//! - Amounts come as strings of minor units and are shown with their currency's decimals, never by floating point.
//! - The token is kept in `sessionStorage` and goes nowhere but into the `Authorization` header of our own origin.
//! - Nothing is fetched from elsewhere; no style or script stands in the page (its content security policy forbids both).
//!
//! What is not here: the build (`cargo xtask web`), the server of the files (`gateway/src/web.rs`), the journeys in a browser
//! (`tests/browser/`).

pub mod app;
pub mod as_of;
pub mod client;
pub mod components;
mod hooks;
pub mod live;
mod pages;
pub mod proof;
pub mod routes;
pub mod session;
pub mod text;
mod theme;

/// Renders the app into the page's `#app`.
pub fn start() {
    theme::apply_kept();
    let root = gloo::utils::document().get_element_by_id("app");
    match root {
        Some(root) => yew::Renderer::<app::App>::with_root(root).render(),
        None => yew::Renderer::<app::App>::new().render(),
    };
}
