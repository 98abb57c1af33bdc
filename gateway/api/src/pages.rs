//! Which paths are pages of the web app. The gateway answers them with the app itself, which then shows the page; a path that is
//! not among them is not found, so that a mistyped API path is never answered with a page.

/// The pages, as the gateway's router writes paths. Each route of the app is under one of them.
pub const PATHS: &[&str] = &["/", "/sign-in", "/ledger/{*page}", "/ops/{*page}", "/stripe/{*page}"];
