//! The routes: one line each, in groups by who may use them. A group's guard and what the OpenAPI document says about it are
//! set by the same function, so the document cannot say otherwise.

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Guard, Role, require};
use crate::health::Health;
use crate::state::{Commands, GatewayState, Queries};
use crate::{docs, edge, health, idempotency, ledger, limits, ops, problem, stream, web, webhooks};

/// Who reads the books.
const FINANCE: &[Role] = &[Role::Finance, Role::Admin];
/// Who keeps it running.
const OPERATORS: &[Role] = &[Role::Operator, Role::Admin];
/// Both.
const BOTH: &[Role] = &[Role::Finance, Role::Operator, Role::Admin];

fn books() -> OpenApiRouter<Queries> {
    OpenApiRouter::new()
        .routes(routes!(ledger::trial_balance::trial_balance))
        .routes(routes!(ledger::creators::list_creators))
        .routes(routes!(ledger::creator_statement::get_creator_statement))
        .routes(routes!(ledger::creator_activity::list_creator_activity))
        .routes(routes!(ledger::accounts::list_accounts))
        .routes(routes!(ledger::account::get_account))
        .routes(routes!(ledger::postings::list_postings))
        .routes(routes!(ledger::entry::get_entry))
        .routes(routes!(ledger::suspense::list_suspense))
        .routes(routes!(ledger::awaited::list_awaited))
        .routes(routes!(ledger::periods::list_periods))
        .routes(routes!(ledger::periods::review_period))
        .routes(routes!(ledger::payouts::get_proposal))
        .routes(routes!(ledger::payouts::list_holds))
        .routes(routes!(ledger::payouts::list_runs))
        .routes(routes!(ledger::payouts::get_run))
        .routes(routes!(ledger::attribution::list_attributions))
        .routes(routes!(ledger::manual_entries::list_manual_entries))
        .routes(routes!(ledger::manual_entries::get_manual_entry))
}

/// Each act is a person's, by the subject of the token.
fn acts() -> OpenApiRouter<Commands> {
    OpenApiRouter::new()
        .routes(routes!(ledger::attribution::attribute_charge))
        .routes(routes!(ledger::attribution::attribute_transfer))
        .routes(routes!(ledger::attribution::attribute_application_fee))
        .routes(routes!(ledger::manual_entries::propose_manual_entry))
        .routes(routes!(ledger::manual_entries::approve_manual_entry))
        .routes(routes!(ledger::manual_entries::reject_manual_entry))
        .routes(routes!(ledger::reversal::reverse_entry))
        .routes(routes!(ledger::open::open_stripe_event))
        .routes(routes!(ledger::payouts::propose_run))
        .routes(routes!(ledger::payouts::approve_run))
        .routes(routes!(ledger::payouts::cancel_run))
        .routes(routes!(ledger::payouts::hold_payouts))
        .routes(routes!(ledger::payouts::resume_payouts))
        .routes(routes!(ledger::periods::close_period))
        .routes(routes!(ledger::periods::reopen_period))
}

fn inbox() -> OpenApiRouter<Queries> {
    OpenApiRouter::new()
        .routes(routes!(ledger::stripe_events::list_stripe_events))
        .routes(routes!(ledger::stripe_event::get_stripe_event))
}

fn operations() -> OpenApiRouter<Queries> {
    OpenApiRouter::new()
        .routes(routes!(ops::projections::list_projections))
        .routes(routes!(ops::operations::get_operation))
        .routes(routes!(ops::journal::get_journal))
}

fn controls() -> OpenApiRouter<Commands> {
    OpenApiRouter::new()
        .routes(routes!(ops::control::pause_projection))
        .routes(routes!(ops::control::resume_projection))
        .routes(routes!(ops::operations::rebuild_projection))
        .routes(routes!(ops::operations::verify_projection))
        .routes(routes!(ops::operations::roll_projection_back))
        .routes(routes!(ops::operations::retire_projection))
        .routes(routes!(ops::skip::skip_event))
}

fn live() -> OpenApiRouter<Queries> {
    OpenApiRouter::new().routes(routes!(stream::stream))
}

fn webhook() -> OpenApiRouter<Commands> {
    OpenApiRouter::new().routes(routes!(webhooks::receive_stripe_webhook))
}

fn healths() -> OpenApiRouter<Health> {
    OpenApiRouter::new().routes(routes!(health::healthz)).routes(routes!(health::readyz))
}

/// A group under `/api/v1` with its guard. Outermost first: bounds, guard, `Idempotency-Key`.
fn guarded<S: Clone + Send + Sync + 'static>(
    state: &GatewayState,
    roles: &'static [Role],
    timed: bool,
    mut group: OpenApiRouter<S>,
) -> OpenApiRouter<S> {
    docs::describe(group.get_openapi_mut(), roles);
    group
        .route_layer(from_fn_with_state(state.idempotency.clone(), idempotency::replay))
        .route_layer(from_fn_with_state(Guard { verifier: state.verifier.clone(), roles }, require))
        .route_layer(from_fn_with_state(state.bounds(timed), limits::bound))
}

/// The whole gateway, `/metrics` apart.
pub fn router(state: &GatewayState) -> Router {
    let queries = OpenApiRouter::new()
        .merge(guarded(state, FINANCE, true, books()))
        .merge(guarded(state, BOTH, true, inbox()))
        .merge(guarded(state, OPERATORS, true, operations()))
        .merge(guarded(state, BOTH, false, live()))
        .with_state(state.queries.clone());
    let commands = OpenApiRouter::new()
        .merge(guarded(state, OPERATORS, true, controls()))
        .merge(guarded(state, FINANCE, true, acts()))
        .merge(webhook())
        .with_state(state.commands.clone());
    let (router, document) = OpenApiRouter::with_openapi(docs::frame())
        .merge(queries)
        .merge(commands)
        .merge(healths().with_state(state.health.clone()))
        .split_for_parts();

    // Neither changes while the process lives.
    let (page, document) = (docs::page(&document), docs::Document::new(&document));
    let pages = state.config().web_dir.as_deref().map(web::routes).unwrap_or_default();
    router
        .merge(pages)
        .route("/openapi.json", get(async move || document.clone()))
        .route("/docs", get(async move || page.clone()))
        .fallback(|| async { problem::Problem::new(problem::Kind::NotFound, "See /docs for what there is.") })
        .layer(from_fn(edge::edge))
}

/// The OpenAPI document, without a gateway behind it.
pub fn openapi() -> OpenApi {
    fn described<S: Clone + Send + Sync + 'static>(roles: &'static [Role], mut group: OpenApiRouter<S>) -> OpenApi {
        docs::describe(group.get_openapi_mut(), roles);
        group.into_openapi()
    }
    let groups = [
        described(FINANCE, books()),
        described(BOTH, inbox()),
        described(OPERATORS, operations()),
        described(BOTH, live()),
        described(OPERATORS, controls()),
        described(FINANCE, acts()),
        webhook().into_openapi(),
        healths().into_openapi(),
    ];
    let mut document = docs::frame();
    groups.into_iter().for_each(|group| document.merge(group));
    document
}
