//! From what the kernel told to the way of a packet: which direction each event is of, and which events are of one packet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::host::conntrack::Tuple;
use crate::host::nft::Family;
use crate::host::nft::Verdict;
use crate::host::nft::trace::{Decision, Event};

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    /// From who asks.
    There,
    /// The answer.
    Back,
}

/// A place in the kernel where rules are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hook {
    pub(super) name: &'static str,
    /// Whether it is a bridge's, not that of the IP layer.
    pub(super) bridge: bool,
}

/// One event with what it is about.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) event: Event,
    pub(super) packet: Tuple,
    pub(super) hook: Hook,
    /// The beginning (false) or the end (true) of a hook; none for rules of others.
    pub(super) own: Option<bool>,
}

impl Seen {
    pub(super) fn drops(&self) -> bool {
        matches!(
            self.event.what,
            Decision::Rule(_, Some(Verdict::Drop)) | Decision::End { drops: true }
        )
    }

    pub(super) fn begins(&self, hook: &str, bridge: bool) -> bool {
        self.own == Some(false) && self.hook.name == hook && self.hook.bridge == bridge
    }
}

/// One packet's way through this host.
pub(super) type Pass = Vec<Seen>;

/// Both directions.
#[derive(Debug, Default)]
pub(super) struct Paths {
    pub(super) there: Pass,
    pub(super) back: Pass,
}

type End = (IpAddr, u16);

fn source(tuple: &Tuple) -> End {
    (tuple.source, tuple.source_port)
}

fn destination(tuple: &Tuple) -> End {
    (tuple.destination, tuple.destination_port)
}

/// Tells the directions of a flow apart, also where its addresses are translated on the way.
struct Directions {
    asker: End,
    /// Where the flow was led to so far.
    asked: BTreeSet<End>,
    /// Where its packets came from so far.
    sources: BTreeSet<IpAddr>,
}

impl Directions {
    /// `entering` says that the packet has just come to this host, or begun there: nobody has translated its source yet.
    fn of(&mut self, event: &Event, packet: &Tuple, entering: bool) -> Option<Direction> {
        if event.error.is_some() {
            return (self.sources.contains(&packet.destination)).then_some(Direction::Back);
        }
        let direction = self.of_flow(packet, entering);
        if direction == Some(Direction::There) {
            self.sources.insert(packet.source);
        }
        direction
    }

    fn of_flow(&mut self, packet: &Tuple, entering: bool) -> Option<Direction> {
        if packet.protocol == 1 || packet.protocol == 58 {
            return match (packet.source_port, packet.destination_port) {
                (0, 0) => None,
                (_, 0) => Some(Direction::There),
                _ => Some(Direction::Back),
            };
        }
        if source(packet) == self.asker {
            self.asked.insert(destination(packet));
            return Some(Direction::There);
        }
        match self.asked.contains(&destination(packet)) {
            true if entering => None,
            true => Some(Direction::There),
            false if destination(packet) == self.asker => Some(Direction::Back),
            false if self.asked.contains(&source(packet)) => Some(Direction::Back),
            false => None,
        }
    }
}

/// Sorts events. `own` says which hook an event of the tracer's own chains is from, and whether from its end. Packets that
/// are of another flow, which others trace, are left out.
pub(super) fn paths(
    events: &[Event],
    began: &Tuple,
    own: impl Fn(&Event) -> Option<(&'static str, bool)>,
) -> Paths {
    let mut directions = Directions {
        asker: source(began),
        asked: BTreeSet::from([destination(began)]),
        sources: BTreeSet::from([began.source]),
    };
    let mut packets: BTreeMap<u32, (Direction, Tuple)> = BTreeMap::new();
    let mut hooks: BTreeMap<(Direction, bool), &'static str> = BTreeMap::new();
    let mut passes: BTreeMap<Direction, Vec<Pass>> = BTreeMap::new();
    for event in events {
        if let Some(packet) = event.packet {
            let entering = matches!(own(event), Some(("prerouting" | "output", false)));
            match directions.of(event, &packet, entering) {
                Some(direction) => packets.insert(event.id, (direction, packet)),
                None => packets.remove(&event.id),
            };
        }
        let Some((direction, packet)) = packets.get(&event.id).copied() else {
            continue;
        };
        let bridge = event.family == Family::Bridge;
        // The first event of a chain is where a packet is; what follows in one of the tracer's own says nothing.
        let place = match own(event) {
            Some(_) if event.packet.is_none() => continue,
            place => place,
        };
        if let Some((hook, _)) = place {
            hooks.insert((direction, bridge), hook);
        }
        let name = hooks
            .get(&(direction, bridge))
            .copied()
            .unwrap_or("prerouting");
        let seen = Seen {
            event: event.clone(),
            packet,
            hook: Hook { name, bridge },
            own: place.map(|(_, last)| last),
        };
        let all = passes.entry(direction).or_default();
        match all.last_mut() {
            Some(pass) if is_known(&seen, pass) => {}
            Some(pass) if !starts(&seen, pass) => pass.push(seen),
            _ => all.push(vec![seen]),
        }
    }
    let mut longest = |direction| {
        let all = passes.remove(&direction).unwrap_or_default();
        // Of a packet and its repetitions, the one that came farthest; of equals the last.
        all.into_iter().max_by_key(Vec::len).unwrap_or_default()
    };
    Paths {
        there: longest(Direction::There),
        back: longest(Direction::Back),
    }
}

/// Whether a packet that is followed by what connection tracking knows of it was followed already.
fn is_known(seen: &Seen, pass: &Pass) -> bool {
    let last = pass.iter().rev().find(|it| it.own.is_some());
    let here =
        |it: &Seen| it.own == Some(false) && it.hook == seen.hook && it.event.id == seen.event.id;
    seen.own == Some(false) && seen.event.chain.ends_with("-tracked") && last.is_some_and(here)
}

/// Whether a packet's way through this host begins here, and does not go on from a bridge into its IP layer or back.
fn starts(seen: &Seen, pass: &Pass) -> bool {
    if seen.begins("prerouting", true) || seen.begins("output", false) {
        return true;
    }
    if !seen.begins("prerouting", false) {
        return false;
    }
    let last = pass.iter().rev().find(|it| it.own.is_some());
    !last.is_some_and(|it| it.hook.bridge && matches!(it.hook.name, "prerouting" | "input"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(source: (u8, u16), destination: (u8, u16)) -> Tuple {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        Tuple {
            source: address(source.0),
            destination: address(destination.0),
            protocol: 6,
            source_port: source.1,
            destination_port: destination.1,
        }
    }

    fn event(id: u32, family: Family, chain: &str, packet: Tuple) -> Event {
        Event {
            id,
            family,
            table: "own".into(),
            chain: chain.into(),
            what: Decision::End { drops: false },
            iif: None,
            oif: None,
            mark: 0,
            resets: false,
            mac: None,
            whole: None,
            error: None,
            packet: Some(packet),
        }
    }

    fn own(event: &Event) -> Option<(&'static str, bool)> {
        let hooks = ["prerouting", "input", "forward", "output", "postrouting"];
        let (hook, place) = event.chain.split_once('-')?;
        Some((hooks.into_iter().find(|it| *it == hook)?, place == "last"))
    }

    #[test]
    fn directions_are_told_apart_through_both_translations_and_when_a_pod_asks_itself() {
        let began = tuple((2, 4000), (96, 80));
        let way = [
            (began, Some(Direction::There)),
            (tuple((2, 4000), (2, 8080)), Some(Direction::There)),
            (tuple((1, 5000), (2, 8080)), Some(Direction::There)),
            (tuple((2, 8080), (1, 5000)), Some(Direction::Back)),
            (tuple((96, 80), (2, 4000)), Some(Direction::Back)),
            // Somebody else's.
            (tuple((7, 1), (8, 2)), None),
        ];
        let mut directions = Directions {
            asker: source(&began),
            asked: BTreeSet::from([destination(&began)]),
            sources: BTreeSet::new(),
        };
        for (packet, direction) in way {
            assert_eq!(directions.of_flow(&packet, false), direction, "{packet:?}");
        }
        let another = tuple((3, 4001), (96, 80));
        assert_eq!(directions.of_flow(&another, true), None);
    }

    #[test]
    fn a_packet_goes_on_from_a_bridge_into_the_ip_layer_and_a_repetition_begins_anew() {
        let began = tuple((2, 4000), (3, 80));
        let (bridge, inet) = (Family::Bridge, Family::Inet);
        let once = |id| {
            [
                event(id, bridge, "prerouting-first", began),
                event(id, inet, "prerouting-first", began),
                event(id, inet, "prerouting-last", began),
                event(id, bridge, "prerouting-last", began),
                event(id, bridge, "input-first", began),
            ]
        };
        let mut events = once(1).to_vec();
        events.extend(once(2)[..3].iter().cloned());
        events.push(event(3, inet, "prerouting-first", tuple((9, 9), (9, 9))));
        let paths = paths(&events, &began, own);
        assert_eq!(paths.there.len(), 5, "{paths:?}");
        assert!(paths.back.is_empty());
    }
}
