//! What plugins add for a container to nftables and iptables, in one transaction or by one child.
//!
//! `table inet floor` with the set `floor` of addresses and ports exists, as the bridge does. An element is an element to
//! the kernel, whatever its set is for.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::netlink::{Batch, CHANGE, CREATE, NLM_F_ACK, Netlink};

const NFPROTO_INET: u8 = 1;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;

/// Adds so many elements of an address.
pub(crate) fn add(address: [u8; 4], count: u16) -> io::Result<()> {
    Netlink::open_netfilter()?.transact(&elements(NEW_ELEMENT, CREATE, address, count))
}

/// Deletes them. The socket has to stay open until the interface is deleted: closing it waits until they are freed.
pub(crate) fn delete(address: [u8; 4], count: u16) -> io::Result<Netlink> {
    let netlink = Netlink::open_netfilter()?;
    netlink.transact(&elements(DELETE_ELEMENT, CHANGE, address, count))?;
    Ok(netlink)
}

fn elements(kind: u16, flags: u16, address: [u8; 4], count: u16) -> Batch {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    let mut batch = Batch::default();
    batch.message(NFNL_MSG_BATCH_BEGIN, CHANGE, &[0, 0, high, low]);
    batch.message(kind, flags | NLM_F_ACK, &[NFPROTO_INET, 0, 0, 0]);
    batch.text(NFTA_SET_ELEM_LIST_TABLE, "floor");
    batch.text(NFTA_SET_ELEM_LIST_SET, "floor");
    let list = batch.open(NFTA_SET_ELEM_LIST_ELEMENTS);
    for port in 1..=count {
        let element = batch.open(NFTA_LIST_ELEM);
        let key = batch.open(NFTA_SET_ELEM_KEY);
        let [a, b, c, d] = address;
        let [high, low] = port.to_be_bytes();
        batch.attribute(NFTA_DATA_VALUE, &[a, b, c, d, high, low, 0, 0]);
        batch.close(key);
        batch.close(element);
    }
    batch.close(list);
    batch.message(NFNL_MSG_BATCH_END, CHANGE, &[0, 0, high, low]);
    batch
}

/// Appends (`-A`) or deletes (`-D`) a rule that masquerades an address.
pub(crate) fn iptables(verb: &str, [a, b, c, d]: [u8; 4]) -> io::Result<()> {
    let rule = format!("*nat\n{verb} POSTROUTING -s {a}.{b}.{c}.{d}/32 -j MASQUERADE\nCOMMIT\n");
    let mut child = Command::new("iptables-restore")
        .args(["--noflush", "--wait"])
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rule.as_bytes())?;
    }
    match child.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("iptables-restore failed")),
    }
}
