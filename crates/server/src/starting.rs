//! The server while its model is being loaded: the port answers from the first second, so that a supervisor can tell
//! a slow start from a dead process, and clients are told to try again.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower::ServiceExt;

use crate::{Page, Refusal, body, envelope, health, page};

/// Puts the real surface in place of the waiting one. Once.
#[derive(Clone, Debug)]
pub struct Opening {
    app: Arc<OnceLock<Router>>,
}

impl Opening {
    /// From now on requests go to `app`. Only the first call has an effect.
    pub fn open(&self, app: Router) {
        let _ = self.app.set(app);
    }
}

/// A surface that answers `/health` and shows the page, and answers 503 to everything else, until [`Opening::open`] is
/// called. The page asks `/ready` until then.
pub fn starting(page: Page) -> (Router, Opening) {
    let opening = Opening { app: Arc::new(OnceLock::new()) };
    let waiting = Router::new()
        .route("/health", get(health))
        .merge(page::routes(page))
        .fallback(refuse)
        .layer(axum::middleware::from_fn(envelope::wrap));
    let router = Router::new().fallback(forward).with_state((opening.clone(), waiting));
    (router, opening)
}

async fn forward(Shared((opening, waiting)): Shared<(Opening, Router)>, request: Request) -> Response {
    let app = opening.app.get().cloned().unwrap_or(waiting);
    // A router answers everything; there is no error to handle.
    app.oneshot(request).await.into_response()
}

async fn refuse(request: Request) -> Refusal {
    let (parts, rest) = request.into_parts();
    body::drain(&parts.headers, rest).await;
    Refusal::NotReady
}
