//! The conformance suite: one executable, one list of tests, named `module::behaviour`.

mod abandoned;
mod bridge;
mod common;
mod concurrency;
mod delegation;
mod demo;
mod dhcp;
mod differential;
mod doctor;
mod environment;
mod failure;
mod fault_walk;
mod faults;
mod garbage_collection;
mod gateways;
mod host_local;
mod host_local_state;
mod input;
mod interoperability;
mod layer3;
mod lifecycle;
mod locks;
mod loopback;
mod maintenance;
mod names;
mod neighbours;
mod portmap;
mod protocol;
mod random;
mod reclaim;
mod rogue_router;
mod samples;
mod scenarios;
mod sequences;
mod storage;
mod trace;
mod versions;

use std::process::ExitCode;

fn main() -> ExitCode {
    let modules = [
        protocol::cases(),
        versions::cases(),
        input::cases(),
        loopback::cases(),
        lifecycle::cases(),
        gateways::cases(),
        neighbours::cases(),
        locks::cases(),
        failure::cases(),
        faults::cases(),
        fault_walk::cases(),
        reclaim::cases(),
        storage::cases(),
        concurrency::cases(),
        environment::cases(),
        sequences::cases(),
        garbage_collection::cases(),
        abandoned::cases(),
        maintenance::cases(),
        names::cases(),
        bridge::cases(),
        layer3::cases(),
        rogue_router::cases(),
        portmap::cases(),
        host_local::cases(),
        host_local_state::cases(),
        delegation::cases(),
        dhcp::cases(),
        doctor::cases(),
        demo::cases(),
        trace::cases(),
        samples::cases(),
        scenarios::cases(),
        differential::cases(),
        interoperability::cases(),
    ];
    conformance::run(modules.into_iter().flatten().collect())
}
