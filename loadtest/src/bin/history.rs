//! The history check as a program: `history FOLDER`, with the audit logs of a cluster whose API server uses the policy
//! `audit-history.yaml`.
#![allow(clippy::print_stdout, reason = "output for users")]

use std::path::Path;

use anyhow::Context;
use frappe_loadtest::history::History;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("history FOLDER: the folder of the audit logs")?;
    println!("{}", History::read(Path::new(&folder))?.check()?);
    Ok(())
}
