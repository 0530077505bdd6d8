//! The steps of a sequence, carried out.

use std::thread;

use serde_json::{Value, json};

use super::plan::{Action, Step};
use super::scene::{Attachment, SUBJECT, SUBJECT_NUMBER, Scene};
use super::verify::protocol;
use super::{hostile, tampering};
use crate::random::Random;

/// System calls that a process is killed at: from those after its start to more than an ADD has.
const CALLS: std::ops::Range<usize> = 30..230;

impl Scene<'_> {
    /// Carry out one step. What it does to the rules and files stays for those after it.
    pub(super) fn step(&mut self, step: Step) -> Result<(), String> {
        let mut random = Random::new(step.seed);
        self.log.push(format!("-- {:?}", step.deed));
        match step.deed {
            Action::Add => self.attach(|_, _| {}, None),
            Action::AddSpoilt => {
                let which = random.number();
                self.attach(
                    |_, attachment| corrupt_one(&mut random, which, &mut attachment.plugins),
                    None,
                )
            }
            Action::AddStrangely => self.attach(
                |scene, attachment| {
                    if let Some(pod) = &scene.subject {
                        hostile::environment(&mut random, &mut attachment.call, pod);
                    }
                },
                None,
            ),
            Action::AddKilled => {
                let at = CALLS.start + random.below(CALLS.len());
                self.attach(|_, _| {}, Some((random.below(3), at)))
            }
            Action::AddAfterLies => self.lie(&mut random, "ADD"),
            Action::CheckLies => self.lie(&mut random, "CHECK"),
            Action::DelLies => self.lie(&mut random, "DEL"),
            Action::Bytes => self.bytes(&mut random),
            Action::Check => {
                let attachment = self.last();
                self.check(&attachment).map(drop)
            }
            Action::Del => {
                let attachment = self.last();
                self.del(&attachment, None).map(drop)
            }
            Action::DelKilled => {
                let attachment = self.last();
                let at = CALLS.start + random.below(CALLS.len());
                self.del(&attachment, Some((random.below(3), at))).map(drop)
            }
            Action::Gc => {
                let living = self.living(random.one_in(2));
                (0..2).try_for_each(|network| self.gc(network, &living).map(drop))
            }
            Action::GcSpoilt => {
                let wrong = json!([null, "x", 7, {}, [7], [null], [{"containerID": 7}]]);
                let wrong = random.pick(wrong.as_array().map_or(&[][..], Vec::as_slice));
                (0..2).try_for_each(|network| self.gc(network, &wrong).map(drop))
            }
            Action::Status => self.status(),
            Action::Race => self.race(),
            Action::Container | Action::Host | Action::File | Action::Vanish => {
                self.tampering(step.deed, &mut random);
                Ok(())
            }
        }
    }

    /// How the subject is attached to the first network when nothing is wrong.
    fn own(&self) -> Attachment {
        self.honest(0, 's', Some(SUBJECT.to_owned()), SUBJECT_NUMBER)
    }

    /// The attachment that was made last.
    fn last(&self) -> Attachment {
        self.made.last().cloned().unwrap_or_else(|| self.own())
    }

    fn attach(
        &mut self,
        change: impl FnOnce(&Self, &mut Attachment),
        killed: Option<(usize, usize)>,
    ) -> Result<(), String> {
        let mut attachment = self.own();
        change(self, &mut attachment);
        let first = self.made.is_empty()
            && self.spoilt.is_empty()
            && !self.log.iter().any(|line| line.starts_with("host: "));
        let added = self.add(&mut attachment, killed);
        let failed = attachment.result.is_none();
        self.made.push(attachment);
        added?;
        if failed && first && killed.is_none() {
            self.assert_undone()?;
        }
        Ok(())
    }

    /// One plugin with something wrong in what it is told of before.
    fn lie(&mut self, random: &mut Random, verb: &str) -> Result<(), String> {
        let mut attachment = self.last();
        let others = self.neighbours[random.below(2)].attachment.result.clone();
        // An address belongs to whom ADD is told that it belongs to: a runtime that lies about that is root.
        let others = others.filter(|_| verb != "ADD");
        let index = random.below(attachment.plugins.len());
        let lie = hostile::prev_result(random, attachment.result.as_ref(), others.as_ref());
        attachment.plugins[index]["prevResult"] = lie;
        if verb != "ADD" && random.one_in(3) {
            hostile::corrupt(random, &mut attachment.plugins[index]);
        }
        let (program, conf) = (
            attachment.programs[index].clone(),
            attachment.plugins[index].clone(),
        );
        let call = attachment.call.clone();
        if verb == "ADD" {
            self.made.push(attachment);
        }
        self.call(verb, &program, &conf, &call, None).map(drop)
    }

    fn bytes(&mut self, random: &mut Random) -> Result<(), String> {
        let attachment = self.own();
        let index = random.below(attachment.plugins.len());
        let verb = random.pick(&[
            "ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION", "", "add", "ADD\n", "EXPLODE",
        ]);
        let bytes = hostile::bytes(random, &attachment.plugins[index]);
        let program = attachment.programs[index].clone();
        let output = self
            .plugin(&program)
            .call_raw(verb, bytes.clone(), &attachment.call);
        let shown: String = String::from_utf8_lossy(&bytes).chars().take(1000).collect();
        self.note(verb, &program, &shown, &attachment.call, &output);
        self.made.push(attachment);
        protocol(verb, &output)
    }

    fn status(&mut self) -> Result<(), String> {
        let attachment = self.own();
        for (program, mut conf) in attachment.programs.into_iter().zip(attachment.plugins) {
            conf["cniVersion"] = json!("1.1.0");
            self.call(
                "STATUS",
                &program,
                &conf,
                &conformance::Call::default(),
                None,
            )?;
        }
        Ok(())
    }

    /// A runtime that gives up on an ADD calls DEL, while the ADD is still at it.
    fn race(&mut self) -> Result<(), String> {
        let attachment = self.own();
        let (program, conf) = (&attachment.programs[0], &attachment.plugins[0]);
        let outputs = thread::scope(|scope| {
            let calls = ["ADD", "DEL", "ADD", "DEL"].map(|verb| {
                let plugin = self.plugin(program);
                let call = &attachment.call;
                (verb, scope.spawn(move || plugin.call(verb, conf, call)))
            });
            calls.map(|(verb, thread)| (verb, thread.join()))
        });
        for (verb, output) in outputs {
            let output = output.map_err(|_| format!("{verb} did not end"))?;
            self.note(verb, program, "(race)", &attachment.call, &output);
            protocol(verb, &output)?;
        }
        self.made.push(attachment);
        Ok(())
    }

    fn tampering(&mut self, deed: Action, random: &mut Random) {
        let done = match deed {
            Action::Container => {
                let known = self.known();
                self.subject
                    .as_ref()
                    .map(|pod| tampering::inside(random, pod, &known))
            }
            Action::Host => Some(tampering::outside(random, &self.host)),
            Action::File => {
                let mut own = tampering::files(&self.host);
                own.retain(|file| !self.files.contains(file));
                let spoilt = tampering::corrupt_a_file(random, &self.host, &own);
                spoilt.map(|(file, what)| {
                    self.spoilt.push(file);
                    what
                })
            }
            _ => self.subject.take().map(|pod| pod.vanish()),
        };
        self.log.extend(done);
    }
}

fn corrupt_one(random: &mut Random, which: u64, plugins: &mut [Value]) {
    let which = usize::try_from(which % plugins.len() as u64).unwrap_or_default();
    hostile::corrupt(random, &mut plugins[which]);
}
