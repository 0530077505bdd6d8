//! /healthz, /readyz and /metrics.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::prometheus_text;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::log::say;
use crate::metrics::Metrics;
use crate::status::Status;
use crate::trestle::Trestle;

/// As many may ask at once; the others wait in the kernel's queue.
const CONNECTIONS: usize = 32;

/// A connection that says nothing for so long is closed, and none lives longer than the second.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
const CONNECTION_LIFE: Duration = Duration::from_secs(300);

/// What `trestle metrics` said counts for so long, as it looks at the whole node.
const FRESH: Duration = Duration::from_secs(10);

/// What there is to serve.
pub(crate) struct Served {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) status: Arc<Status>,
    pub(crate) trestle: Trestle,
    /// What `trestle metrics` said last, and when. Who asks meanwhile waits for the one who looks.
    pub(crate) node: Mutex<Option<(Instant, String)>>,
}

/// Serves, for ever.
pub(crate) async fn serve(listener: TcpListener, served: Arc<Served>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                say(format_args!("accept a connection: {error}"));
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &served));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            // Who goes away while being answered misses nothing but the answer.
            let _ = timeout(CONNECTION_LIFE, connection).await;
            drop(permit);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    served: &Served,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, text) = match request.uri().path() {
        _ if !readable => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into()),
        "/healthz" => (StatusCode::OK, "ok\n".into()),
        "/readyz" => {
            let missing = served.status.missing();
            match missing.is_empty() {
                true => (StatusCode::OK, "ok\n".into()),
                false => (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n"),
            }
        }
        "/metrics" => (
            StatusCode::OK,
            served.metrics.text() + &served.node_metrics().await,
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "there are /healthz, /readyz and /metrics\n".into(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(prometheus_text::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

impl Served {
    /// What `trestle metrics` says; nothing where it fails.
    async fn node_metrics(&self) -> String {
        let mut kept = self.node.lock().await;
        if let Some((at, text)) = &*kept
            && at.elapsed() < FRESH
        {
            return text.clone();
        }
        let text = match self.trestle.call("metrics", &[]).await {
            Ok(said) if said.status == Some(0) => said.stdout,
            Ok(said) => {
                say(format_args!(
                    "trestle metrics ended with status {:?}",
                    said.status
                ));
                String::new()
            }
            Err(error) => {
                say(format_args!("{error}"));
                String::new()
            }
        };
        *kept = Some((Instant::now(), text.clone()));
        text
    }
}
