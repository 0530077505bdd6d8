//! Making the node what the API server says it should be: list and routes.
//!
//! Nothing is done before the nodes are known completely and this one is among them. Afterwards the routes follow what is told,
//! and what others change about them on this host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use kube::runtime::watcher::Event;
use plugins::host::HostError;
use plugins::host::rtnl::Route;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::args::Args;
use crate::cluster::{Announcer, Change, Facts, Known, OwnNode, Watch};
use crate::list::{self, Values, Written};
use crate::log::say;
use crate::metrics::Metrics;
use crate::routes::{Applied, HostView, NextHop, Plan, Reason, Refusal, Situation, Table, plan};
use crate::status::{Part, Status};

/// Changes come in crowds: what is told so soon after the first is taken together.
const SETTLE: Duration = Duration::from_millis(50);

/// Until what failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// So many are named in an event.
const NAMED: usize = 3;

/// Keeps list and routes.
pub(crate) struct Reconciler<'a> {
    args: &'a Args,
    known: Known,
    table: Table,
    announcer: Announcer,
    metrics: &'a Metrics,
    status: &'a Status,
    /// The last error of the API server, to say it once.
    said: String,
}

impl<'a> Reconciler<'a> {
    pub(crate) fn new(
        args: &'a Args,
        announcer: Announcer,
        metrics: &'a Metrics,
        status: &'a Status,
    ) -> Result<Self, HostError> {
        Ok(Self {
            args,
            known: Known::new(&args.node_name),
            table: Table::new(args.route_protocol)?,
            announcer,
            metrics,
            status,
            said: String::new(),
        })
    }

    /// Does it, for ever.
    pub(crate) async fn run(&mut self, mut watch: Watch, host_changed: Arc<Notify>) {
        let mut due: Option<Instant> = None;
        loop {
            let soon = Instant::now() + SETTLE;
            let now_due = due;
            tokio::select! {
                event = watch.next() => match event {
                    Ok(event) => {
                        // That a listing begins is said before anybody has answered.
                        if !matches!(event, Event::Init) {
                            self.api_answers();
                        }
                        if self.known.take(event) == Change::Nodes {
                            due = Some(due.map_or(soon, |at| at.min(soon)));
                        }
                    }
                    Err(problem) => self.api_fails(problem),
                },
                () = host_changed.notified() => due = Some(due.map_or(soon, |at| at.min(soon))),
                () = sleep_until(now_due.unwrap_or(soon)), if now_due.is_some() => {
                    let again = self.reconcile();
                    due = again.then(|| Instant::now() + RETRY);
                }
            }
        }
    }

    fn api_answers(&mut self) {
        self.metrics.watching.set(1);
        if !std::mem::take(&mut self.said).is_empty() {
            say(format_args!("the API server answers again"));
        }
    }

    fn api_fails(&mut self, problem: String) {
        self.metrics.watching.set(0);
        self.metrics.watch_errors.inc();
        if self.said != problem {
            say(format_args!(
                "{problem}; the routes stay as they are, trying again"
            ));
            self.said = problem;
        }
    }

    /// Compares and corrects. True when something has to be tried again.
    fn reconcile(&self) -> bool {
        let Some(nodes) = self.known.nodes() else {
            return false;
        };
        self.metrics.reconciles.inc();
        self.metrics.nodes.set(signed(nodes.len()));
        let Some((own, facts)) = self.known.own() else {
            let name = &self.args.node_name;
            self.fail(
                Part::Nodes,
                format!("the API server lists no node {name}: is NODE_NAME right?"),
            );
            return false;
        };
        self.status.set(Part::Nodes, Ok(()));
        let (host, there) = match self.table.look() {
            Ok(seen) => seen,
            Err(error) => {
                self.fail(Part::Routes, error.to_string());
                return true;
            }
        };
        let there_by_net = next_hops(&there);
        let mut plan = plan(&Situation {
            own: &self.args.node_name,
            nodes,
            host: &host,
            cluster: &self.args.cluster_cidrs,
            there: &there_by_net,
        });
        self.metrics.nodes_waiting.set(signed(plan.waiting));
        let routes_again = self.keep_routes(&there, &mut plan);
        let list_again = self.keep_list(&host, facts, &plan);
        self.announce(own, &plan);
        routes_again || list_again
    }

    /// A part lacks something, which is said when it is new.
    fn fail(&self, part: Part, problem: String) {
        if !self.status.missing().contains(&problem) {
            say(format_args!("{problem}"));
        }
        self.status.set(part, Err(problem));
    }

    fn keep_routes(&self, there: &[Route], plan: &mut Plan) -> bool {
        if !self.args.routes.is_on() {
            plan.routes.clear();
            plan.refusals.clear();
        }
        let Applied {
            added,
            replaced,
            removed,
            kept,
            failures,
        } = self.table.apply(there, &plan.routes);
        if added + replaced + removed > 0 {
            say(format_args!(
                "routes: {added} added, {replaced} replaced, {removed} removed, {kept} kept"
            ));
        }
        for (label, count) in [
            ("added", added),
            ("replaced", replaced),
            ("removed", removed),
        ] {
            self.metrics
                .route_changes
                .get_or_create(&[("change", label)])
                .inc_by(count);
        }
        let failed = !failures.is_empty();
        for (net, error) in failures {
            say(format_args!("{error}"));
            plan.routes.remove(&net);
            plan.refusals.push(Refusal::new(
                "",
                net.to_string(),
                Reason::Kernel(error.to_string()),
            ));
        }
        self.count(plan);
        self.status.set(Part::Routes, Ok(()));
        failed
    }

    fn count(&self, plan: &Plan) {
        let v4 = plan
            .routes
            .keys()
            .filter(|net| matches!(net, IpNet::V4(_)))
            .count();
        for (label, count) in [("ipv4", v4), ("ipv6", plan.routes.len() - v4)] {
            self.metrics
                .routes
                .get_or_create(&[("family", label)])
                .set(signed(count));
        }
        self.metrics.refused.clear();
        for refusal in &plan.refusals {
            let label = [("reason", refusal.reason.label())];
            self.metrics.refused.get_or_create(&label).inc();
        }
        if plan.refusals.is_empty() {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            self.metrics.last_success.set(now.as_secs_f64());
        }
    }

    /// Writes the list, if there is enough known to do so.
    fn keep_list(&self, host: &HostView, own: &Facts, plan: &Plan) -> bool {
        if !self.args.list.is_on() {
            return false;
        }
        if let Some(Refusal { subnet, reason, .. }) = &plan.own {
            let problem = format!("this node's pod subnet {subnet} is not used: {reason}");
            self.fail(Part::List, problem);
            return false;
        }
        if own.announces_nothing() {
            let problem = "this node has no podCIDR: does the controller manager run with --allocate-node-cidrs?";
            self.fail(Part::List, problem.into());
            return false;
        }
        let conf_dir = self.args.on_host(&self.args.conf_dir);
        let path = conf_dir.join(&self.args.conf_name);
        let text = list::make(self.args.template.as_deref(), &self.values(host, own));
        match text.and_then(|text| list::write(&path, &text)) {
            Ok(Written::Same) => {}
            Ok(written) => {
                self.metrics.list_writes.inc();
                let how = if written == Written::New {
                    "wrote"
                } else {
                    "replaced"
                };
                say(format_args!("{how} {}", path.display()));
            }
            Err(error) => {
                self.fail(Part::List, error.to_string());
                return true;
            }
        }
        self.status.set(Part::List, Ok(()));
        false
    }

    fn values(&self, host: &HostView, own: &Facts) -> Values {
        let here = |address: &&IpAddr| host.link_of(**address).is_some();
        let addresses: Vec<IpAddr> = own.addresses.iter().filter(here).copied().collect();
        let link = addresses.first().and_then(|address| host.link_of(*address));
        // Where it can't be told, a template that needs it says so.
        let mtu = link.and_then(|link| self.table.mtu_of(link).ok().flatten());
        let mut nodes: Vec<IpNet> = Vec::new();
        for net in addresses
            .iter()
            .filter_map(|address| host.network_of(*address))
        {
            if !nodes.contains(&net) {
                nodes.push(net);
            }
        }
        Values {
            pods: own.subnets.clone(),
            cluster: self.args.cluster_cidrs.clone(),
            nodes,
            mtu,
        }
    }

    /// Tells the API server what is refused, and that the node is ready.
    fn announce(&self, own: &OwnNode, plan: &Plan) {
        let mut by_event: BTreeMap<&'static str, Vec<&Refusal>> = BTreeMap::new();
        for refusal in plan.refusals.iter().chain(&plan.own) {
            by_event
                .entry(refusal.reason.event())
                .or_default()
                .push(refusal);
        }
        for (event, refusals) in by_event {
            self.announcer.warn(own, event, note(&refusals));
        }
        if self.status.missing().is_empty() {
            self.announcer.ready(own);
        }
    }
}

/// What an event says of refusals for one reason: how many, the first ones, and what to do.
fn note(refusals: &[&Refusal]) -> String {
    let named: Vec<String> = refusals
        .iter()
        .take(NAMED)
        .map(|it| format!("{} of node {}: {}", it.subnet, it.node, it.reason))
        .collect();
    let more = match refusals.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let remedy = refusals.first().map_or("", |it| it.reason.remedy());
    format!(
        "No route to the pod subnet {}{more}. {remedy}.",
        named.join("; ")
    )
}

fn next_hops(routes: &[Route]) -> BTreeMap<IpNet, NextHop> {
    let hop = |route: &Route| {
        let (via, link) = (route.gateway?, route.oif?);
        Some((route.dst, NextHop { via, link }))
    };
    routes.iter().filter_map(hop).collect()
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
