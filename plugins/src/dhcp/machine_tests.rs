//! The state machine by whole conversations.

use super::super::lease::tests::reply;
use super::super::message::tests::{MAC, client};
use super::*;

const PATIENCE: Patience = Patience {
    answer: 10_000,
    between: 62_000,
    whole: 200_000,
};

fn sent(step: &Step) -> &Send {
    match step {
        Step::Send(send) => send,
        other => panic!("nothing is sent: {other:?}"),
    }
}

/// The kind in option 53, which comes right after the cookie or behind the other options in their order.
fn kind(send: &Send) -> u8 {
    let options = &send.message[240..];
    let mut at = 0;
    while options[at] != 53 {
        at += 2 + usize::from(options[at + 1]);
    }
    options[at + 2]
}

const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;
const OWN: [u8; 4] = [10, 0, 0, 5];

fn bound(more: &[(u8, &[u8])]) -> Machine {
    let mut machine = Machine::acquire(client(), PATIENCE, 7, 1_000);
    assert_eq!(kind(sent(&machine.tick(1_000, 0))), 1);
    assert_eq!(
        kind(sent(&machine.hear(&reply(OFFER, 7, OWN, more), 1_100))),
        3
    );
    assert_eq!(machine.hear(&reply(ACK, 7, OWN, more), 1_200), Step::Bound);
    machine
}

#[test]
fn a_lease_is_had_by_four_messages() {
    let mut machine = Machine::acquire(client(), PATIENCE, 7, 1_000);
    let discover = machine.tick(1_000, 0);
    let send = sent(&discover);
    assert_eq!(
        (send.from, send.to),
        (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)
    );
    assert_eq!(send.via, BROADCAST);
    let request = machine.hear(&reply(OFFER, 7, OWN, &[]), 1_100);
    assert_eq!(sent(&request).to, Ipv4Addr::BROADCAST);
    assert!(machine.listens());
    assert_eq!(machine.hear(&reply(ACK, 7, OWN, &[]), 1_200), Step::Bound);
    assert!(!machine.listens());
    let held = machine.held().unwrap();
    assert_eq!((held.since, held.end()), (1_100, 601_100));
    assert_eq!(machine.due(), 301_100);
}

#[test]
fn silence_is_met_with_patience_and_ends_in_an_error() {
    let mut machine = Machine::acquire(client(), PATIENCE, 7, 0);
    let mut at = Vec::new();
    let error = loop {
        let now = machine.due();
        match machine.tick(now, 0) {
            Step::Send(_) => at.push(now),
            Step::Failed(error) => break error,
            other => panic!("{other:?}"),
        }
    };
    let waits: Vec<Millis> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let most = [1_000, 2_000, 4_000, 8_000]
        .into_iter()
        .chain(std::iter::repeat(10_000));
    for (wait, most) in waits.iter().zip(most) {
        assert!((most * 3 / 4..=most).contains(wait), "{waits:?}");
    }
    assert!((20..30).contains(&waits.len()), "{waits:?}");
    assert!(error.contains("no server answered within 200 s"), "{error}");
    assert_eq!(machine.tick(Millis::MAX, 0), Step::Wait);
}

#[test]
fn clients_that_begin_together_do_not_go_on_together() {
    let due = |xid| {
        let mut machine = Machine::acquire(client(), PATIENCE, xid, 5);
        machine.tick(5, 0);
        machine.tick(machine.due(), 0);
        machine.due()
    };
    let all: std::collections::BTreeSet<Millis> =
        (0..50_u32).map(|n| due(n * 0x0137_9bdf)).collect();
    assert!(all.len() > 20, "{all:?}");
}

#[test]
fn answers_for_others_and_late_ones_are_not_heard() {
    let mut machine = Machine::acquire(client(), PATIENCE, 7, 0);
    machine.tick(0, 0);
    let mut other = reply(OFFER, 7, OWN, &[]);
    other.mac = [2; 6];
    assert_eq!(machine.hear(&other, 10), Step::Wait);
    assert_eq!(machine.hear(&reply(OFFER, 8, OWN, &[]), 10), Step::Wait);
    // An ACK before an offer, and a second offer after the first.
    assert_eq!(machine.hear(&reply(ACK, 7, OWN, &[]), 10), Step::Wait);
    sent(&machine.hear(&reply(OFFER, 7, OWN, &[]), 10));
    assert_eq!(machine.hear(&reply(OFFER, 7, OWN, &[]), 20), Step::Wait);
    // Something else than what was offered.
    assert_eq!(
        machine.hear(&reply(ACK, 7, [10, 0, 0, 9], &[]), 20),
        Step::Wait
    );
    assert_eq!(machine.hear(&reply(ACK, 7, OWN, &[]), 30), Step::Bound);
    // Everything again.
    for kind in [OFFER, ACK, NAK] {
        assert_eq!(machine.hear(&reply(kind, 7, OWN, &[]), 40), Step::Wait);
    }
}

#[test]
fn an_offer_that_is_of_no_use_is_told_of_in_the_end() {
    let mut machine = Machine::acquire(client(), PATIENCE, 7, 0);
    machine.tick(0, 0);
    let hostile = reply(OFFER, 7, OWN, &[(51, &[0; 4])]);
    assert_eq!(machine.hear(&hostile, 10), Step::Wait);
    let Step::Failed(error) = machine.tick(200_000, 0) else {
        panic!("it goes on");
    };
    assert!(
        error.contains("a server gives 10.0.0.5 for no time at all"),
        "{error}"
    );
}

#[test]
fn a_server_that_is_silent_after_its_offer_is_left() {
    let mut machine = Machine::acquire(client(), PATIENCE, 7, 0);
    machine.tick(0, 0);
    machine.hear(&reply(OFFER, 7, OWN, &[]), 10);
    let kinds: Vec<u8> = (0..4)
        .map(|_| kind(sent(&machine.tick(machine.due(), 0))))
        .collect();
    assert_eq!(kinds, [3, 3, 3, 1]);
    // One that refuses its own offer is not asked again at once.
    machine.hear(&reply(OFFER, 7, OWN, &[]), 20_000);
    assert_eq!(
        machine.hear(&reply(NAK, 7, [0; 4], &[]), 20_010),
        Step::Wait
    );
    assert!(machine.due() > 20_500);
    assert_eq!(kind(sent(&machine.tick(machine.due(), 0))), 1);
}

#[test]
fn the_server_is_asked_for_more_time_and_then_anybody() {
    let mut machine = bound(&[]);
    assert_eq!(machine.tick(301_099, 9), Step::Wait);
    let renew = machine.tick(301_100, 9);
    let send = sent(&renew);
    assert_eq!(
        (kind(send), send.message[4..8].to_vec()),
        (3, vec![0, 0, 0, 9])
    );
    assert_eq!((send.from, send.to), (OWN.into(), [10, 0, 0, 1].into()));
    assert_eq!(send.via, MAC);
    // T2 is at 525 s: from there on it is broadcast.
    let mut by_broadcast = None;
    while by_broadcast.is_none() {
        let now = machine.due();
        let step = machine.tick(now, 0);
        by_broadcast = (sent(&step).via == BROADCAST).then_some(now);
    }
    assert_eq!(by_broadcast, Some(526_100));
    // Another server takes over.
    let other: (u8, &[u8]) = (54, &[10, 0, 0, 2]);
    assert_eq!(
        machine.hear(&reply(ACK, 9, OWN, &[other]), 530_000),
        Step::Bound
    );
    let held = machine.held().unwrap();
    assert_eq!(held.lease.server, Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(held.since, 526_100);
}

#[test]
fn a_lease_that_nobody_extends_is_lost_at_its_end() {
    let mut machine = bound(&[]);
    let mut messages = 0;
    loop {
        let now = machine.due();
        match machine.tick(now, 9) {
            Step::Send(_) => messages += 1,
            Step::Lost(reason) => {
                assert_eq!(now, 601_100);
                assert!(reason.contains("ended"), "{reason}");
                break;
            }
            other => panic!("{other:?}"),
        }
        assert!(messages < 50, "a client that never rests");
    }
    assert!(machine.held().is_none() && !machine.listens());
    assert_eq!(machine.release(1), None);
}

#[test]
fn a_server_that_forgot_gives_the_same_address_again() {
    let mut machine = bound(&[]);
    machine.tick(301_100, 9);
    // A refusal for another transaction, which anybody could have sent, is none.
    assert_eq!(
        machine.hear(&reply(NAK, 7, [0; 4], &[]), 301_200),
        Step::Wait
    );
    let discover = machine.hear(&reply(NAK, 9, [0; 4], &[]), 301_200);
    assert_eq!(kind(sent(&discover)), 1);
    // Another address is none that the container could use.
    assert_eq!(
        machine.hear(&reply(OFFER, 9, [10, 0, 0, 9], &[]), 301_300),
        Step::Wait
    );
    sent(&machine.hear(&reply(OFFER, 9, OWN, &[]), 301_400));
    assert_eq!(machine.hear(&reply(ACK, 9, OWN, &[]), 301_500), Step::Bound);
    assert_eq!(machine.held().unwrap().since, 301_400);
}

#[test]
fn a_refused_lease_is_lost_when_it_ends() {
    let mut machine = bound(&[]);
    machine.tick(301_100, 9);
    let nak = reply(NAK, 9, [0; 4], &[(56, b"wrong network")]);
    sent(&machine.hear(&nak, 301_200));
    let reason = loop {
        match machine.tick(machine.due(), 9) {
            Step::Send(_) => {}
            Step::Lost(reason) => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(reason.contains("(wrong network)"), "{reason}");
    assert!(machine.held().is_none());
}

#[test]
fn the_shortest_lease_makes_no_storm_and_the_longest_no_overflow() {
    let mut machine = bound(&[(51, &[0, 0, 0, 1])]);
    let mut messages = 0;
    while let Step::Send(_) = machine.tick(machine.due(), 9) {
        messages += 1;
    }
    assert!(messages <= 3, "{messages}");
    assert_eq!(bound(&[(51, &[255; 4])]).due(), Millis::MAX);
    let long = bound(&[(51, &[255, 255, 255, 254])]);
    assert_eq!(long.held().unwrap().end(), 1_100 + 4_294_967_294_000);
}

#[test]
fn a_lease_is_given_back_to_its_server() {
    let mut machine = bound(&[]);
    let release = machine.release(11).unwrap();
    assert_eq!(kind(&release), 7);
    assert_eq!(
        (release.from, release.to),
        (OWN.into(), [10, 0, 0, 1].into())
    );
    assert_eq!(release.via, MAC);
    assert_eq!(machine.release(12), None);
    assert_eq!(machine.tick(Millis::MAX, 0), Step::Wait);
}

#[test]
fn a_lease_goes_on_after_a_restart() {
    let held = bound(&[]).held().unwrap().clone();
    let mut machine = Machine::resume(client(), PATIENCE, 3, held.clone());
    assert_eq!((machine.due(), machine.listens()), (301_100, false));
    assert_eq!(sent(&machine.tick(400_000, 9)).via, MAC);
    // One that ended meanwhile is lost at once.
    let mut machine = Machine::resume(client(), PATIENCE, 3, held);
    assert!(matches!(machine.tick(700_000, 9), Step::Lost(_)));
}
