//! The admin port: metrics, liveness and readiness, for the platform and never for callers.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tower::Service;

use crate::app::App;
use crate::error::ApiError;
use crate::metrics::{ConnectionLabels, QuotaLabels};
use crate::routes::call::Call;
use crate::routes::{Answer, Body, BoxError, full, health};

/// Form of the metrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The admin port's service.
#[derive(Clone)]
pub struct Admin {
    app: Arc<App>,
    registry: Arc<Registry>,
}

/// The admin port's service, with all metrics registered.
#[must_use]
pub fn service(app: Arc<App>) -> Admin {
    let mut registry = Registry::default();
    app.metrics.register(&mut registry);
    app.forward.metrics.register(&mut registry);
    app.cluster.register_runs(&mut registry);
    app.policies.metrics().register(&mut registry);
    Admin { app, registry: Arc::new(registry) }
}

impl<B> Service<Request<B>> for Admin
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let admin = self.clone();
        Box::pin(async move { Ok(admin.answer(request).await.unwrap_or_else(|error| error.response(""))) })
    }
}

impl Admin {
    async fn answer<B>(self, mut request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if let Some(refused) = request.extensions_mut().remove::<ApiError>() {
            return Err(refused);
        }
        let path = request.uri().path().to_owned();
        if !matches!(path.as_str(), "/metrics" | "/healthz" | "/readyz") {
            return Err(ApiError::no_such_route());
        }
        if request.method() != Method::GET {
            return Err(ApiError::method_not_allowed("GET".to_owned()));
        }
        let call = Call::new(request, Vec::new(), 0);
        match path.as_str() {
            "/healthz" => health::live(self.app, call).await,
            "/readyz" => health::ready(self.app, call).await,
            _ => self.metrics().await,
        }
    }

    async fn metrics(&self) -> Answer {
        self.measure().await;
        let mut text = String::new();
        encode(&mut text, &self.registry).map_err(|error| ApiError::internal(error.to_string()))?;
        let mut response = Response::new(full(text));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
        Ok(response)
    }

    /// Sets what is known only when asked for.
    async fn measure(&self) {
        let App { store, cluster, metrics, .. } = &*self.app;
        metrics.functions.set(cluster.function_count() as i64);
        self.measure_quota();
        let (open, idle) = store.connections();
        for (state, count) in [("idle", idle), ("used", open.saturating_sub(idle))] {
            metrics.connections.get_or_create(&ConnectionLabels { state }).set(count as i64);
        }
        match store.backlog().await {
            Ok(backlog) => {
                metrics.pending.set(backlog.rows);
                metrics.pending_age.set(backlog.oldest_seconds);
            }
            // An outage must be visible, and must not take the other metrics with it.
            Err(_) => drop(metrics.pending.set(-1)),
        }
    }

    /// Over the namespaces of each tier; one value per namespace would be as many as there are tenants.
    fn measure_quota(&self) {
        let App { cluster, metrics, .. } = &*self.app;
        // A tier that is gone must not be told for ever.
        metrics.quota_cpu.clear();
        metrics.quota_memory.clear();
        for (tier, totals) in cluster.totals() {
            for (kind, sum) in [("hard", totals.hard), ("reserved", totals.reserved), ("used", totals.used)] {
                let labels = QuotaLabels { tier: tier.clone(), kind };
                metrics.quota_cpu.get_or_create(&labels).set(sum.cpu_requests as f64 / 1000.0);
                metrics.quota_memory.get_or_create(&labels).set(sum.memory_requests as f64);
            }
        }
    }
}
