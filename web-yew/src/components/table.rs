//! Tables that are tables on a desk and cards on a phone.
//!
//! A cell knows its column's name, which is shown beside it where there is no room for a head. The roles are written out,
//! because browsers forget that a table is one when its rows are laid out otherwise.

use yew::prelude::*;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// What stands above it.
    pub name: &'static str,
    /// Figures stand right.
    pub figures: bool,
}

/// A column of words.
pub const fn words(name: &'static str) -> Column {
    Column { name, figures: false }
}

/// A column of figures.
pub const fn figures(name: &'static str) -> Column {
    Column { name, figures: true }
}

/// Some rows with a heading of their own.
pub struct Group {
    /// The heading, where there is one, and what stands at its right end.
    pub heading: Option<(Html, Html)>,
    /// Rows: as many cells as there are columns. An empty cell is `None`.
    pub rows: Vec<Vec<Option<Html>>>,
}

/// A table; its first column names the row.
pub fn view(caption: Html, columns: &[Column], groups: Vec<Group>, total: Option<Vec<Option<Html>>>) -> Html {
    let class = |column: &Column| column.figures.then_some("figures");
    let head = columns.iter().map(|column| {
        html! { <th scope="col" role="columnheader" class={classes!(class(column))}>{ column.name }</th> }
    });
    let row = |cells: Vec<Option<Html>>| {
        let cells = columns.iter().zip(cells).enumerate().map(|(at, (column, cell))| match (at, cell) {
            (0, cell) => html! { <th scope="row" role="rowheader">{ for cell }</th> },
            (_, Some(cell)) => {
                html! { <td role="cell" class={classes!(class(column))} data-label={column.name}>{ cell }</td> }
            }
            (_, None) => html! { <td role="cell" class="none" /> },
        });
        html! { <tr role="row">{ for cells }</tr> }
    };
    let bodies = groups.into_iter().map(|group| {
        let heading = group.heading.map(|(name, right)| {
            let span = columns.len().saturating_sub(1).to_string();
            html! {
                <tr role="row" class="group">
                    <th scope="rowgroup" role="rowheader" colspan={span}>{ name }</th>
                    <td role="cell" class="figures">{ right }</td>
                </tr>
            }
        });
        html! { <tbody role="rowgroup">{ for heading }{ for group.rows.into_iter().map(row) }</tbody> }
    });
    let total = total.map(|total| html! { <tfoot role="rowgroup">{ row(total) }</tfoot> });
    html! {
        <table role="table">
            <caption>{ caption }</caption>
            <thead role="rowgroup"><tr role="row">{ for head }</tr></thead>
            { for bodies }
            { for total }
        </table>
    }
}

/// A table without groups.
pub fn plain(caption: Html, columns: &[Column], rows: Vec<Vec<Option<Html>>>) -> Html {
    view(caption, columns, vec![Group { heading: None, rows }], None)
}
