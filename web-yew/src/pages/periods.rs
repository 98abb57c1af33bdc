//! Which months are closed, and by whom.

use fanledger_gateway_api::{PeriodAct, PeriodActKind, PeriodHistory, PeriodState, Periods};
use yew::prelude::*;

use crate::as_of::View;
use crate::components::table::{self, Group, figures, words};
use crate::components::{Link, badge, empty, heading, loading, moment, problem, stale};
use crate::hooks::{page::use_advance, use_query, use_title};
use crate::routes::Route;
use crate::text;

/// The page.
#[component]
pub(crate) fn PeriodsPage() -> Html {
    use_title("Periods");
    let query = use_query::<Periods>(Some("/api/v1/ledger/periods".to_owned()));
    let refresh = query.refresh.reform(|()| None);
    use_advance(true, refresh.clone());
    let content = match (&query.data, &query.error) {
        (None, Some(error)) => problem(error, Some(&refresh)),
        (None, None) => loading("the periods"),
        (Some(periods), _) if periods.periods.is_empty() => empty(
            "Nothing is closed yet.",
            html! { <>{ "Every month is open. Any that has ended can be closed first, by " }<code>{ "fanledger ledger close" }</code>{ "." }</> },
        ),
        (Some(periods), error) => html! { <>{ stale(error.as_ref()) }{ shown(periods) }</> },
    };
    let under = "A closed month stays as it was: what is learnt of it later counts at the first open instant. Each leads to its balances and their digest.";
    html! { <>{ heading(html! { "Periods" }, html! { under }, html! {}) }{ content }</> }
}

fn shown(periods: &Periods) -> Html {
    let columns = [words("Month"), words("When"), words("Who"), words("Why"), figures("Journal position")];
    let groups = periods
        .periods
        .iter()
        .map(|period| Group { heading: None, rows: period.acts.iter().rev().map(|act| row(period, act)).collect() });
    let next =
        periods.next.as_ref().map(|next| format!("; {next} can be closed next, once it is over")).unwrap_or_default();
    let open = match &periods.first_open {
        Some(first) => html! { <>{ "Open from " }{ moment(first) }{ " on" }{ next }{ "." }</> },
        None => html! { "Every month is open." },
    };
    html! {
        <>
            <p>{ open }</p>
            <section class="card" aria-label="Months">
                { table::view(html! { "Months that were closed, newest first" }, &columns, groups.collect(), None) }
            </section>
        </>
    }
}

fn row(period: &PeriodHistory, act: &PeriodAct) -> Vec<Option<Html>> {
    let (tone, word) = match act.act {
        PeriodActKind::Closed => ("good", "closed"),
        PeriodActKind::Reopened => ("warn", "opened again"),
    };
    let is_last = period.acts.last() == Some(act);
    let month = match period.state {
        // What fixes it, its digest too, stands above its balances.
        PeriodState::Closed if is_last => html! {
            <Link to={Route::TrialBalance} view={View::of_month(Some(period.period.clone()))}>{ period.period.clone() }</Link>
        },
        PeriodState::Closed | PeriodState::Open => html! { period.period.clone() },
    };
    vec![
        Some(html! { <>{ month }{ " " }{ badge(tone, word) }</> }),
        Some(moment(&act.at)),
        Some(html! { act.by.clone() }),
        act.reason.clone().map(Html::from),
        Some(html! { text::count(act.position) }),
    ]
}
