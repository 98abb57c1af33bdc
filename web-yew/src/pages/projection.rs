//! One runner: how it does, and what an operator may do about it. A rebuild is watched here to its end.

use fanledger_gateway_api::{
    Generation, GenerationState, Operation, OperationAsked, OperationKind, Page, RunnerState, RunnerStatus,
};
use serde_json::{Value, json};
use yew::prelude::*;

use crate::client::Answered;
use crate::components::confirm::confirm;
use crate::components::table::{self, figures, words};
use crate::components::toast::Say;
use crate::components::{Link, badge, empty, fact, facts, heading, hint, loading, moment, problem, stale};
use crate::hooks::{Query, use_command, use_interval, use_query, use_title};
use crate::pages::projections::state;
use crate::proof::{Proof, generation_of_outcome};
use crate::routes::{Route, segment};
use crate::text;

/// While something is under way: quick enough that a bar moves.
const WATCH_MS: u32 = 400;
/// Else.
const POLL_MS: u32 = 2_000;

#[derive(Clone, PartialEq, Properties)]
pub(crate) struct ProjectionProps {
    pub name: AttrValue,
}

/// The page.
#[component]
pub(crate) fn ProjectionPage(props: &ProjectionProps) -> Html {
    use_title(&format!("Projection {}", props.name));
    let path = format!("/api/v1/ops/projections/{}", segment(&props.name));
    let runners = use_query::<Page<RunnerStatus>>(Some("/api/v1/ops/projections".to_owned()));
    let runner = runners.data.as_ref().and_then(|page| page.items.iter().find(|runner| *runner.name == *props.name));
    let was_asked = runner.is_some_and(|runner| runner.operation.is_some());
    let operation = use_query::<Operation>(was_asked.then(|| format!("{path}/operation")));
    let refresh = {
        let (runners, operation) = (runners.refresh.clone(), operation.refresh.clone());
        Callback::from(move |()| {
            runners.emit(None);
            operation.emit(None);
        })
    };
    let is_open = operation.data.as_ref().is_some_and(|operation| operation.finished_at.is_none());
    use_interval(if is_open { WATCH_MS } else { POLL_MS }, true, refresh.clone());

    let content = match (runner, &runners.error) {
        (Some(runner), error) => html! {
            <>
                { stale(error.as_ref()) }
                { halt(runner) }
                { under_way(&operation) }
                <Actions path={path} runner={runner.clone()} {is_open} {refresh} />
                { status(runner) }
                { generations(&runner.generations) }
            </>
        },
        (None, Some(error)) => problem(error, Some(&refresh)),
        (None, None) if runners.data.is_some() => {
            empty("There is no such runner.", html! { <Link to={Route::Projections}>{ "All of them" }</Link> })
        }
        (None, None) => loading("the runner"),
    };
    let beside = runner.map(|runner| state(runner.state)).unwrap_or_default();
    html! {
        <>
            <p class="crumbs"><Link to={Route::Projections}>{ "Projections" }</Link></p>
            { heading(html! { props.name.clone() }, html! {}, beside) }
            { content }
        </>
    }
}

/// Why it stands still and what to do.
fn halt(runner: &RunnerStatus) -> Html {
    let Some(error) = &runner.error else { return html! {} };
    let said = |field: &str| error.get(field).and_then(Value::as_str).map(str::to_owned);
    let kind = said("kind");
    let advice = match kind.as_deref() {
        Some("history_changed") => "The journal is another one than it has read. Only a rebuild helps.",
        Some("poison") => {
            "Mend what cannot be applied and resume; or pass over the event by `fanledger projections skip` and resume."
        }
        Some("version_changed") => "The program is of another version than the tables. Rebuild.",
        Some("generation_missing") => "Its tables are gone. Rebuild.",
        Some(_) | None => "docs/runbooks/halted.md says what to do.",
    };
    html! {
        <div class="problem" role="alert">
            <p class="problem-title">{ format!("Halted: {}", kind.map_or_else(|| "it does not say why".to_owned(), |kind| text::words(&kind))) }</p>
            <p>{ said("message").unwrap_or_default() }</p>
            <p>{ advice }{ " The journal goes on, and so do the others." }</p>
        </div>
    }
}

/// The phases in their order.
const PHASES: [(&str, &str); 7] = [
    ("queued", "Queued"),
    ("loading", "Reading the journal"),
    ("indexing", "Making indexes"),
    ("catching_up", "Catching up"),
    ("proving", "Proving"),
    ("waiting", "Waiting for readers"),
    ("switching", "Switching"),
];

/// The last operation: how far it is, or how it ended.
fn under_way(query: &Query<Operation>) -> Html {
    let Some(operation) = &query.data else {
        return stale(query.error.as_ref());
    };
    let what = match operation.kind {
        OperationKind::Rebuild => "Rebuild",
        OperationKind::Verify => "Verification",
        OperationKind::Rollback => "Rollback",
        OperationKind::Retire => "Retirement",
    };
    let verdict = match (&operation.finished_at, &operation.error) {
        (None, _) => badge("warn", "under way"),
        (Some(_), None) => badge("good", "succeeded"),
        (Some(_), Some(_)) => badge("bad", "failed"),
    };
    let content = if operation.finished_at.is_none() { progress(operation) } else { ended(operation) };
    html! {
        <section class="card operation" aria-labelledby="operation">
            <div class="card-head"><h2 id="operation">{ format!("{what} {}", operation.operation) }</h2>{ verdict }</div>
            { content }
        </section>
    }
}

fn progress(operation: &Operation) -> Html {
    let at = PHASES.iter().position(|(phase, _)| *phase == operation.phase);
    let steps = PHASES.iter().enumerate().map(|(number, (_, name))| {
        let class = match at {
            Some(at) if number < at => "done",
            Some(at) if number == at => "now",
            Some(_) | None => "",
        };
        html! { <li class={class} aria-current={(class == "now").then_some("step")}>{ *name }</li> }
    });
    let left = operation.seconds_left.map(|left| format!(", {left} s left")).unwrap_or_default();
    let phase = text::sentence(&text::words(&operation.phase));
    // Before it has begun there is nothing to be told.
    let said = if operation.target == 0 {
        format!("{phase}.")
    } else {
        format!(
            "{phase}: position {} of {}, {} events a second{left}.",
            text::count(operation.position),
            text::count(operation.target),
            text::count(operation.events_per_second),
        )
    };
    let steps = match operation.kind {
        OperationKind::Rebuild | OperationKind::Verify => html! { <ol class="steps">{ for steps }</ol> },
        OperationKind::Rollback | OperationKind::Retire => html! {},
    };
    html! {
        <>
            { steps }
            <progress max={operation.target.max(1).to_string()} value={operation.position.to_string()} aria-label="How much of the journal is read" />
            <p class="said" aria-live="polite">{ said }</p>
        </>
    }
}

fn ended(operation: &Operation) -> Html {
    let outcome = operation.outcome.as_ref();
    let proof = outcome.and_then(Proof::of_outcome);
    let live = outcome.and_then(generation_of_outcome);
    let said = match (&operation.error, operation.kind, live) {
        (Some(error), ..) => error.clone(),
        (None, OperationKind::Rebuild, Some(generation)) => {
            format!("Generation {generation} is live. The one before is kept and fed, to go back to.")
        }
        (None, OperationKind::Verify, _) => "What is live is what the journal makes.".to_owned(),
        (None, OperationKind::Rollback, Some(generation)) => {
            format!("Generation {generation} is live again. The other is kept.")
        }
        (None, OperationKind::Retire, _) => "What was kept is dropped.".to_owned(),
        (None, OperationKind::Rebuild | OperationKind::Rollback, None) => "Done.".to_owned(),
    };
    html! {
        <>
            <p class="said" aria-live="polite">{ said }</p>
            { for proof.as_ref().map(proof_table) }
            { for operation.finished_at.as_deref().map(|at| html! { <p class="hint">{ "Ended " }{ moment(at) }{ "." }</p> }) }
        </>
    }
}

fn proof_table(proof: &Proof) -> Html {
    let verdict = if proof.is_equal() { badge("good", "equal, row by row") } else { badge("bad", "they differ") };
    let rows = proof.tables.iter().map(|table| {
        let columns: Vec<String> =
            table.columns_added.iter().map(|name| format!("+{name}")).chain(table.columns_removed.iter().map(|name| format!("−{name}"))).collect();
        vec![
            Some(html! { <>{ table.table.clone() }if !columns.is_empty() { <span class="sub">{ columns.join(" ") }</span> }</> }),
            Some(html! { text::count(table.equal) }),
            Some(html! { text::count(table.changed) }),
            Some(html! { text::count(table.only_live) }),
            Some(html! { text::count(table.only_new) }),
        ]
    });
    let caption = html! {
        <>{ format!("Generation {} against {}, at position {} ", proof.new_generation, proof.live_generation, text::count(proof.position)) }{ verdict }</>
    };
    let columns =
        [words("Table"), figures("Equal rows"), figures("Changed"), figures("Only before"), figures("Only new")];
    table::plain(caption, &columns, rows.collect())
}

fn status(runner: &RunnerStatus) -> Html {
    html! {
        <section class="card" aria-labelledby="status">
            <h2 id="status">{ "How it does" }</h2>
            { facts(vec![
                fact("Lag", html! { format!("{}, {}", text::seconds(runner.lag_seconds), text::counted(runner.lag_events, "event")) }),
                fact("Position", html! { text::count(runner.position) }),
                fact("Journal’s head", html! { text::count(runner.head) }),
                fact("Version of its code", html! { runner.version }),
            ]) }
        </section>
    }
}

fn generations(generations: &[Generation]) -> Html {
    let rows = generations.iter().rev().map(|generation| {
        let (tone, word) = match generation.state {
            GenerationState::Live => ("good", "live"),
            GenerationState::Kept => ("plain", "kept"),
            GenerationState::Building => ("warn", "building"),
            GenerationState::Retiring => ("plain", "retiring"),
        };
        vec![
            Some(html! { format!("Generation {}", generation.generation) }),
            Some(html! { <>{ badge(tone, word) }if generation.halted { { " " }{ badge("bad", "halted") } }</> }),
            Some(html! { text::count(generation.position) }),
            Some(html! { generation.version }),
        ]
    });
    let columns = [words("Tables"), words("State"), figures("Position"), figures("Version")];
    html! { <section class="card" aria-label="Generations">{ table::plain(html! { "Generations of its tables" }, &columns, rows.collect()) }</section> }
}

/// What an operator may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Rebuild,
    Verify,
    Rollback,
    Retire,
    Pause,
    Resume,
}

impl Act {
    const fn path(self) -> &'static str {
        match self {
            Self::Rebuild => "rebuild",
            Self::Verify => "verify",
            Self::Rollback => "rollback",
            Self::Retire => "retire",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Rebuild => "Rebuild",
            Self::Verify => "Verify",
            Self::Rollback => "Roll back",
            Self::Retire => "Retire what is kept",
            Self::Pause => "Pause",
            Self::Resume => "Resume",
        }
    }

    /// What happens, for whoever is asked whether it shall.
    const fn meaning(self) -> &'static str {
        match self {
            Self::Rebuild => {
                "New tables are made from the journal’s beginning, beside the live ones, which go on being read. They go live only if both hold the same, row by row; the ones before are kept, to go back to."
            }
            Self::Verify => {
                "New tables are made from the journal’s beginning, compared with the live ones, and dropped. What is live stays."
            }
            Self::Rollback => {
                "The tables that were live before go live again. They were fed all the while, so nothing is lost, and the way back is the same."
            }
            Self::Retire => {
                "The tables that are kept to go back to are dropped. After that only a rebuild makes others."
            }
            Self::Pause => {
                "It stops after what it is at. The journal goes on without it, and what is read from it stands still until it is resumed."
            }
            Self::Resume => "It goes on where it stopped. What halted it is tried again.",
        }
    }
}

#[derive(Clone, PartialEq, Properties)]
struct ActionsProps {
    path: String,
    runner: RunnerStatus,
    is_open: bool,
    refresh: Callback<()>,
}

#[component]
fn Actions(props: &ActionsProps) -> Html {
    let asked = use_state(|| None::<Act>);
    let say = use_context::<Say>();
    let operation_begun = {
        let (refresh, say) = (props.refresh.clone(), say.clone());
        Callback::from(move |answered: Answered<OperationAsked>| {
            if let Some(say) = &say {
                say.say(format!("Operation {} is taken in; a projector works on it.", answered.value.operation));
            }
            refresh.emit(());
        })
    };
    let told = {
        let refresh = props.refresh.clone();
        Callback::from(move |_: Answered<Value>| {
            if let Some(say) = &say {
                say.say("It was told.");
            }
            refresh.emit(());
        })
    };
    let operations = use_command(operation_begun);
    let controls = use_command(told);
    let busy = props.is_open || operations.running || controls.running;
    let has_kept = props.runner.generations.iter().any(|generation| generation.state == GenerationState::Kept);
    let stands = matches!(props.runner.state, RunnerState::Halted | RunnerState::Paused);
    let button = |act: Act, enabled: bool, class: &'static str| {
        let asked = asked.clone();
        let onclick = Callback::from(move |_: MouseEvent| asked.set(Some(act)));
        html! { <button type="button" class={class} {onclick} disabled={busy || !enabled}>{ act.name() }</button> }
    };
    let dialog = asked.map(|act| {
        let declined = {
            let asked = asked.clone();
            Callback::from(move |()| asked.set(None))
        };
        let agreed = {
            let asked = asked.clone();
            let (operations, controls, path) = (operations.send.clone(), controls.send.clone(), props.path.clone());
            Callback::from(move |()| {
                asked.set(None);
                let (path, body) = (format!("{path}/{}", act.path()), json!({}));
                match act {
                    Act::Rebuild | Act::Verify | Act::Rollback | Act::Retire => operations.emit((path, body)),
                    Act::Pause | Act::Resume => controls.emit((path, body)),
                }
            })
        };
        let title = format!("{} {}?", act.name(), props.runner.name);
        confirm(title, act.meaning(), act.name(), &agreed, &declined)
    });
    let error = operations.error.as_ref().or(controls.error.as_ref());
    html! {
        <section class="card" aria-labelledby="acts">
            <h2 id="acts">{ "What can be done" }</h2>
            <div class="actions start">
                { button(Act::Rebuild, true, "primary") }
                { button(Act::Rollback, has_kept, "") }
                { button(Act::Verify, true, "") }
                { button(Act::Retire, has_kept, "") }
                { button(if stands { Act::Resume } else { Act::Pause }, true, "") }
            </div>
            if !has_kept {
                { hint("There is nothing to roll back to: a rebuild keeps the tables before it.") }
            }
            if let Some(error) = error {
                { problem(error, None) }
            }
            { for dialog }
        </section>
    }
}
