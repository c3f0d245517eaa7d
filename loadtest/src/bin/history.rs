//! The exact history check by itself: `history FOLDER`, with the audit logs of a cluster whose API server ran with the
//! policy `audit-history.yaml`.
#![allow(clippy::print_stdout, reason = "the program speaks to a person")]

use std::path::Path;

use anyhow::Context;
use frappe_loadtest::history::History;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("history FOLDER: the folder of the audit logs")?;
    println!("{}", History::read(Path::new(&folder))?.judge()?);
    Ok(())
}
