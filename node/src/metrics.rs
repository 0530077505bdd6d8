//! What the agent counts. What is known of attachments and pools is `trestle metrics`'.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// One label with a value that is known when this is compiled.
type Label = [(&'static str, &'static str); 1];

/// The metrics, which are cheap to clone, and their names.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Nodes that the API server lists.
    pub(crate) nodes: Gauge,
    /// Nodes without a subnet.
    pub(crate) nodes_waiting: Gauge,
    /// Routes that there are.
    pub(crate) routes: Family<Label, Gauge>,
    /// Subnets without a route.
    pub(crate) refused: Family<Label, Gauge>,
    pub(crate) route_changes: Family<Label, Counter>,
    /// How often the routes were compared with what they should be.
    pub(crate) reconciles: Counter,
    pub(crate) watch_errors: Counter,
    /// Whether the API server's last word was no error.
    pub(crate) watching: Gauge,
    pub(crate) list_writes: Counter,
    pub(crate) repairs: Family<Label, Counter>,
    pub(crate) repaired_attachments: Counter,
    pub(crate) gc: Family<Label, Counter>,
    pub(crate) installs: Family<Label, Counter>,
    /// When the routes were right for the last time, in seconds since 1970.
    pub(crate) last_success: Gauge<f64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("trestle_node");
        macro_rules! register {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                register(&mut registry, $name, $help, &metric);
                metric
            }};
        }
        let mut metrics = Self {
            nodes: register!("nodes", "Nodes that the API server lists"),
            nodes_waiting: register!("nodes_without_subnet", "Other nodes without a pod subnet"),
            routes: register!("routes", "Routes to the pods of other nodes"),
            refused: register!("routes_refused", "Pod subnets without a route, by reason"),
            route_changes: register!("route_changes", "Routes added, replaced and removed"),
            reconciles: register!(
                "reconciles",
                "Comparisons of the routes with what they should be"
            ),
            watch_errors: register!("watch_errors", "Errors while nodes were listed and watched"),
            watching: register!(
                "watching",
                "Whether the API server's last answer was no error"
            ),
            list_writes: register!("list_writes", "How often the node's list was written"),
            repairs: register!("repairs", "Calls of repair after rules were removed"),
            repaired_attachments: register!(
                "repaired_attachments",
                "Attachments that were repaired"
            ),
            gc: register!("gc", "Calls of gc"),
            installs: register!("installs", "Installations of the plugins"),
            last_success: register!(
                "last_success_timestamp_seconds",
                "When all routes were as they should be, for the last time"
            ),
            registry: Registry::default(),
        };
        metrics.registry = registry;
        metrics
    }

    /// All of them in the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a text can't fail.
        let _ = prometheus_text::encode(&mut text, &self.registry);
        text
    }
}

fn register<M>(registry: &mut Registry, name: &str, help: &str, metric: &M)
where
    M: prometheus_client::registry::Metric + Clone,
{
    registry.register(name, help, metric.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_labels_are_spelt_as_prometheus_wants_them() {
        let metrics = Metrics::new();
        metrics.routes.get_or_create(&[("family", "ipv4")]).set(7);
        metrics.watch_errors.inc();
        let text = metrics.text();
        for line in [
            "# TYPE trestle_node_routes gauge",
            "trestle_node_routes{family=\"ipv4\"} 7",
            "# TYPE trestle_node_watch_errors_total counter",
            "trestle_node_watch_errors_total 1",
        ] {
            assert!(
                text.lines().any(|it| it == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
