//! Asking and acting from a page.

pub(crate) mod command;
pub(crate) mod page;
pub(crate) mod pages;
pub(crate) mod query;

pub(crate) use command::use_command;
pub(crate) use page::{use_interval, use_title, use_view};
pub(crate) use pages::{Pages, use_pages};
pub(crate) use query::{Query, use_query};
