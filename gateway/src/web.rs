//! The web app's files, as `cargo xtask web` wrote them, from a directory.
//!
//! Everything under `/assets` has its content's digest in its name and may be kept for ever; the page that names them is asked
//! for again each time. Files are read as they are asked for, so a new build is served without a restart. There is nothing
//! here but what is public: what the pages show they ask for under `/api/v1`, with a token.

use std::path::Path;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, get_service};
use fanledger_gateway_api::pages;
use tower::ServiceExt;
use tower_http::services::{ServeDir, ServeFile};

use crate::problem::Plain;

/// Scripts, styles and requests of our own and nothing else; no script and no style within a page. Without `wasm-unsafe-eval`
/// a browser compiles no wasm; it allows nothing but that.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
/// A year, which is as long as caches keep anything.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// What is shown where the app was not built: the API works without it.
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Fanledger</title>\
    <h1>The web app is not built</h1>\
    <p>Run <code>make web</code> in the repository and load this page again; it says what it needs. \
    The API works without it: <a href=\"/docs\">its documentation</a>.</p></html>\n";

/// The app's pages and files.
pub(crate) fn routes(directory: &Path) -> Router {
    let files = ServeDir::new(directory).append_index_html_on_directories(false);
    let files = get_service(files.precompressed_br().precompressed_gzip());
    let router = Router::new().route("/assets/{*file}", files).layer(map_response(kept_for_ever));
    let index = ServeFile::new(directory.join("index.html")).precompressed_br().precompressed_gzip();
    pages::PATHS.iter().fold(router, |router, path| {
        let index = index.clone();
        router.route(path, get(async move |request: Request| page(index, request).await))
    })
}

async fn kept_for_ever(mut response: Response) -> Response {
    if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(FOR_EVER));
    }
    response
}

/// The app, whichever of its pages is asked for.
async fn page(index: ServeFile, request: Request) -> Response {
    // A file that cannot be read is a 404 or a 500; it never fails otherwise.
    let mut response = match index.oneshot(request).await {
        Ok(response) => response.into_response(),
        Err(never) => match never {},
    };
    if response.status() == StatusCode::NOT_FOUND {
        response = (StatusCode::NOT_FOUND, Html(NOT_BUILT)).into_response();
        response.extensions_mut().insert(Plain);
    }
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
