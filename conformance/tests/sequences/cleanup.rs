//! What must be true when a sequence is over.

use conformance::Snapshot;

use super::network::device;
use super::scene::{SUBJECT_NUMBER, Scene, ShellLine, inside};

impl Scene<'_> {
    /// Take everything of the subject away, and see whether all others live as before and nothing is left.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        for attachment in self.made.clone() {
            self.del(&attachment, None)?;
        }
        self.repair_files();
        for attachment in self.made.clone() {
            if !self.del(&attachment, None)? && attachment.whole {
                return Err("DEL of what was attached fails".to_owned());
            }
        }
        self.log.push("everything is restored".to_owned());
        self.host.sh_line(self.filter);
        self.witness()?;
        self.assert_left(&self.before.clone(), "beside the neighbours")?;
        for index in 0..self.neighbours.len() {
            let attachment = self.neighbours[index].attachment.clone();
            if !self.del(&attachment, None)? {
                return Err("DEL of a neighbour fails".to_owned());
            }
        }
        self.assert_left(&self.empty.clone(), "when everybody is gone")
    }

    /// What an administrator does to files that can't be read or written.
    fn repair_files(&self) {
        for file in &self.spoilt {
            let repair = format!(
                "chattr -i '{file}' 2>/dev/null; [ -f '{file}' ] && [ ! -h '{file}' ] && chmod 0600 '{file}' || rm -rf '{file}'"
            );
            self.host.sh_line(&repair);
        }
    }

    /// An honest container comes to each network, the neighbours are looked at, and it goes again.
    fn witness(&mut self) -> Result<(), String> {
        let mut witnesses = Vec::new();
        for index in 0..2 {
            let mut attachment = self.honest(index, 'w', Some(self.witnesses[index].netns()), 2);
            self.add(&mut attachment, None)?;
            if !attachment.whole || !self.check(&attachment)? {
                return Err("a container that comes later is not served".to_owned());
            }
            witnesses.push(attachment);
        }
        for index in 0..self.neighbours.len() {
            let attachment = self.neighbours[index].attachment.clone();
            if !self.check(&attachment)? {
                return Err("CHECK of a neighbour fails".to_owned());
            }
            let neighbour = &self.neighbours[index];
            let now = inside(&neighbour.pod);
            if now != neighbour.inside {
                return Err(format!(
                    "inside of a neighbour:\n{:#?}\nwas\n{:#?}",
                    now, neighbour.inside
                ));
            }
            if let Some(gateway) = neighbour
                .gateway
                .filter(|_| !neighbour.pod.pings(address(neighbour.gateway)))
            {
                return Err(format!("a neighbour does not reach {gateway}"));
            }
        }
        for attachment in &witnesses {
            if !self.del(attachment, None)? {
                return Err("DEL of a witness fails".to_owned());
            }
        }
        let living = self.living(false);
        for network in 0..2 {
            if !self.gc(network, &living)? {
                return Err("GC fails".to_owned());
            }
        }
        Ok(())
    }

    /// Nothing that wasn't there before, which the kernel may take a moment for.
    pub(super) fn assert_left(&self, before: &Snapshot, when: &str) -> Result<(), String> {
        let mut left = Vec::new();
        for _ in 0..100 {
            left = self.left(before);
            if left.is_empty() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Err(format!("{when}: left behind:\n{}", left.join("\n")))
    }

    /// What is left right after something that had to undo itself.
    pub(super) fn assert_undone(&self) -> Result<(), String> {
        self.assert_left(&self.before, "after an ADD that failed")
    }

    fn left(&self, before: &Snapshot) -> Vec<String> {
        let mut left = self.host.observe().leftovers(before);
        left.retain(|line| !self.spoilt.iter().any(|file| line.contains(file.as_str())));
        left.retain(|line| !is_noise(line));
        // Who is root in a container can delete or give away the device that it has.
        for letter in ['a', 'b'] {
            let device = device(letter, SUBJECT_NUMBER);
            left.retain(|line| !line.contains(&device));
        }
        left
    }
}

fn address(text: Option<&str>) -> std::net::IpAddr {
    text.and_then(|text| text.parse().ok())
        .unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// What belongs to a network and goes with its last container: the interfaces that its results named.
fn is_noise(line: &str) -> bool {
    line.starts_with("+ nft element") && line.contains("\"comment\":\"network ")
}
