//! Lists.

use serde::{Deserialize, Serialize};

/// A part of a list. `cursor=<next_cursor>` asks for the part after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// This part.
    pub items: Vec<T>,
    /// Where the next part begins; null at the end. Opaque, and only for the same question.
    pub next_cursor: Option<String>,
}
