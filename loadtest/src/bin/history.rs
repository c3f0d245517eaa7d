//! The exact history check by itself: `history FOLDER`, with the audit logs of a cluster whose API server ran with the
//! policy `audit-history.yaml`.
#![allow(clippy::print_stdout, reason = "the program speaks to a person")]

use std::path::Path;

use anyhow::Context;
use frappe_loadtest::history::History;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("history FOLDER: the folder of the audit logs")?;
    let history = History::read(Path::new(&folder))?;
    let trespasses = history.trespasses();
    println!(
        "{} writes to sites and their Jobs, {} versions of the map, {} writes by a non-owner that took effect",
        history.effects.len(),
        history.maps.len(),
        trespasses.len()
    );
    for trespass in &trespasses {
        println!("{trespass}");
    }
    anyhow::ensure!(trespasses.is_empty(), "a replica wrote what was not its own");
    Ok(())
}
