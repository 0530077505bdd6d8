//! As much of DNS (RFC 1035) as one question and one answer take: a server that answers every name with the address
//! it saw the question come from, as public "whoami" names do, and its client.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// A recursive query, and the response to one without error.
const QUERY: u16 = 0x0100;
const RESPONSE: u16 = 0x8180;

/// The record types of an address, and the class they are in.
const A: u16 = 1;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;

/// A name that is a pointer to the one in the question, which follows the twelve bytes of the header.
const NAME_OF_QUESTION: u16 = 0xc00c;
const HEADER: usize = 12;

/// The name that is asked for.
const NAME: [&str; 3] = ["whoami", "cluster", "local"];

/// A question for the asker's own address.
pub(crate) fn question(id: u16, to: SocketAddr) -> Vec<u8> {
    let mut message = header(id, QUERY, 0);
    for label in NAME {
        message.extend(u8::try_from(label.len()));
        message.extend(label.as_bytes());
    }
    message.push(0);
    let kind = if to.is_ipv4() { A } else { AAAA };
    [kind, INTERNET]
        .iter()
        .for_each(|word| message.extend(word.to_be_bytes()));
    message
}

/// The answer to a question from `peer`; none to what is no question.
pub(crate) fn answer(question: &[u8], peer: SocketAddr) -> Option<Vec<u8>> {
    let asked = question.get(HEADER..)?;
    if word(question, 2)? != QUERY {
        return None;
    }
    let (kind, data) = match peer.ip() {
        IpAddr::V4(ip) => (A, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AAAA, ip.octets().to_vec()),
    };
    let mut message = header(word(question, 0)?, RESPONSE, 1);
    message.extend(asked);
    // Name, type, class, a time to live of two words, the length of what follows.
    let length = u16::try_from(data.len()).ok()?;
    [NAME_OF_QUESTION, kind, INTERNET, 0, 0, length]
        .iter()
        .for_each(|word| message.extend(word.to_be_bytes()));
    message.extend(data);
    Some(message)
}

/// The address in the answer to this question.
pub(crate) fn read(question: &[u8], answer: &[u8]) -> io::Result<IpAddr> {
    let parsed = || {
        let same_id = word(question, 0)? == word(answer, 0)?;
        let good = same_id && word(answer, 2)? == RESPONSE && word(answer, 6)? == 1;
        let record = answer.get(question.len()..).filter(|_| good)?;
        let data = record.get(HEADER..)?;
        match word(record, 2)? {
            A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
            AAAA => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
            _ => None,
        }
    };
    parsed().ok_or_else(|| io::Error::other(format!("no answer to the question: {answer:02x?}")))
}

fn header(id: u16, flags: u16, answers: u16) -> Vec<u8> {
    let words = [id, flags, 1, answers, 0, 0];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}
