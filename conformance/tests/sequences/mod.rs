//! Whole sequences of ADD, CHECK, GC and DEL with hostile configurations, environments and results, while the container and
//! others do what they shouldn't.
//!
//! Each sequence has a host of its own with two honest neighbours: one of the same network, one of another whose name differs in
//! the last byte. Every call must keep to the protocol; afterwards whoever comes is served, the neighbours live as before, and
//! nothing is left. A sequence is made from its seed, which is in every message: `TRESTLE_SEQUENCE=SEED` repeats it. One that
//! fails is tried again without each of its steps, so that those are named that it needs.
//!
//! Without more, as in `make test`, they are the same few each time ([`SAMPLE`]), so that a change is judged by what it does
//! and not by chance. `TRESTLE_SEQUENCES_SECONDS` goes on for that long with seeds that are others each time, as `make fuzz`
//! does.

mod cleanup;
mod hostile;
mod network;
mod plan;
mod scene;
mod steps;
mod tampering;
mod verify;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use conformance::{Case, Lab, Need, case};

use self::plan::Step;
use self::scene::Scene;
use crate::random::{self, Random};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(hostile_sequences_harm_nobody)
            .ours()
            .needs(Need::Strace),
    ]
}

/// The seeds where nobody says for how long: the same ones each time. Whatever changes what a sequence is made of changes
/// what they stand for.
const SAMPLE: Range<u64> = 1..13;

fn hostile_sequences_harm_nobody(lab: &Lab) {
    if let Some(seed) = random::given("TRESTLE_SEQUENCE") {
        return run(lab, seed).expect("this sequence");
    }
    let problems = match random::given("TRESTLE_SEQUENCES_SECONDS") {
        None => SAMPLE.filter_map(|seed| run(lab, seed).err()).collect(),
        Some(seconds) => fresh_ones(lab, Duration::from_secs(seconds)),
    };
    assert!(
        problems.is_empty(),
        "{} went wrong:\n{}",
        problems.len(),
        problems.join("\n\n")
    );
}

/// Sequences that nobody has seen, for that long; what went wrong.
fn fresh_ones(lab: &Lab, time: Duration) -> Vec<String> {
    let first = random::fresh() * 1000;
    eprintln!("sequences from {first} on");
    let until = Instant::now() + time;
    let mut tried = 0;
    let seeds = (first..)
        .take_while(|_| Instant::now() < until)
        .inspect(|_| tried += 1);
    let problems = seeds
        .filter_map(|seed| {
            run(lab, seed)
                .err()
                .inspect(|problem| eprintln!("{problem}"))
        })
        .collect();
    eprintln!("{tried} sequences");
    problems
}

/// The sequence of this seed; what went wrong, with the steps that it takes.
fn run(lab: &Lab, seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut steps = plan::steps(&mut random);
    let Err(mut problem) = attempt(lab, &random, &steps) else {
        return Ok(());
    };
    // What depends on time may not happen again: then nothing is left out. To wait for a hang once is enough.
    let hangs = problem.contains("not finished after");
    for index in (0..steps.len()).rev().filter(|_| !hangs) {
        let mut fewer = steps.clone();
        fewer.remove(index);
        if let Err(shorter) = attempt(lab, &random, &fewer) {
            (steps, problem) = (fewer, shorter);
        }
    }
    let deeds: Vec<_> = steps.iter().map(|step| step.deed).collect();
    Err(format!("TRESTLE_SEQUENCE={seed}: {deeds:?}\n{problem}"))
}

fn attempt(lab: &Lab, random: &Random, steps: &[Step]) -> Result<(), String> {
    let mut scene = Scene::new(lab, &mut random.clone());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        scene.settle()?;
        for step in steps {
            scene.step(*step)?;
        }
        scene.finish()
    }));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.unwrap_or_else(|| "a panic of the test".to_owned()))
    });
    outcome.map_err(|problem| format!("{}\n{problem}", scene.log.join("\n")))
}
