//! Every runner: projections and process managers.

use fanledger_gateway_api::{Page, RunnerState, RunnerStatus};
use yew::prelude::*;

use crate::components::table::{self, figures, words};
use crate::components::{Link, badge, empty, heading, loading, problem, stale};
use crate::hooks::{use_interval, use_query, use_title};
use crate::routes::Route;
use crate::text;

/// A lag is worth looking at each second.
const POLL_MS: u32 = 1_000;

/// The page.
#[component]
pub(crate) fn ProjectionsPage() -> Html {
    use_title("Projections");
    let query = use_query::<Page<RunnerStatus>>(Some("/api/v1/ops/projections".to_owned()));
    let refresh = query.refresh.reform(|()| None);
    use_interval(POLL_MS, true, refresh.clone());
    let content = match (&query.data, &query.error) {
        (None, Some(error)) => problem(error, Some(&refresh)),
        (None, None) => loading("the runners"),
        (Some(page), _) if page.items.is_empty() => {
            empty("Nothing runs yet.", html! { "Start the roles projector and manager." })
        }
        (Some(page), error) => {
            let columns = [
                words("Name"),
                words("State"),
                figures("Lag"),
                figures("Events behind"),
                figures("Position"),
                figures("Generation"),
            ];
            html! {
                <>
                    { stale(error.as_ref()) }
                    <section class="card" aria-label="Runners">
                        { table::plain(html! { "Projections and process managers" }, &columns, page.items.iter().map(row).collect()) }
                    </section>
                </>
            }
        }
    };
    let under = "What everybody reads is made by these from the journal, and can be made again.";
    html! { <>{ heading(html! { "Projections" }, html! { under }, html! {}) }{ content }</> }
}

/// A runner's state, in a word.
pub(crate) fn state(state: RunnerState) -> Html {
    match state {
        RunnerState::Live => badge("good", "live"),
        RunnerState::CatchingUp => badge("warn", "catching up"),
        RunnerState::Paused => badge("warn", "paused"),
        RunnerState::Halted => badge("bad", "halted"),
    }
}

fn row(runner: &RunnerStatus) -> Vec<Option<Html>> {
    let to = Route::Projection { name: runner.name.clone() };
    let kept = runner.generations.len() > 1;
    vec![
        Some(html! { <Link {to}>{ runner.name.clone() }</Link> }),
        Some(state(runner.state)),
        Some(html! { text::seconds(runner.lag_seconds) }),
        Some(html! { text::count(runner.lag_events) }),
        Some(html! { text::count(runner.position) }),
        Some(
            html! { <>{ runner.generation }if kept { <span class="sub">{ format!("of {}", runner.generations.len()) }</span> }</> },
        ),
    ]
}
