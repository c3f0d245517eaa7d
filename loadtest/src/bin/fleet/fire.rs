//! Fault scenarios, one after the other, while sites are edited.

use std::time::Duration;

use frappe_loadtest::{audit, history::History, members::Members, process::NAMESPACE, proxy::Mode};
use jiff::Timestamp;

use crate::editor::Editor;

/// Three lease durations.
const PAUSE: Duration = Duration::from_secs(45);
/// Duration of the API server's outage.
const OUTAGE: Duration = Duration::from_mins(1);
/// Time limit for sharing the slots evenly again.
const SETTLE: Duration = Duration::from_secs(90);

/// Measures one scenario from its start until everything is shared and reconciled again.
struct Measurement {
    name: String,
    begun: Timestamp,
}

impl Measurement {
    #[expect(clippy::disallowed_methods, reason = "the audit log has the wall clock's time")]
    fn begin(name: &str, editor: &Editor) -> Self {
        editor.waits();
        Self { name: name.to_owned(), begun: Timestamp::now() }
    }

    /// `gone` are the uids of dead pods: the map shows how long their slots were unowned.
    async fn end(self, members: &Members<'_>, editor: &Editor, gone: &[String]) -> anyhow::Result<()> {
        members.settled(SETTLE).await?;
        let limit = tokio::time::Instant::now() + SETTLE;
        while editor.backlog().1 > Duration::from_secs(1) && tokio::time::Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (edits, [p50, p99, most]) = editor.waits();
        let requests = audit::requests(&members.cluster.logs, self.begun)?;
        let swaps = requests
            .iter()
            .filter(|it| it.resource == "slotmaps" && !["get", "list", "watch"].contains(&it.verb.as_str()));
        let (landed, refused): (Vec<_>, Vec<_>) = swaps.partition(|it| it.code < 300);
        // Edits only cause status writes: any other write to a site would be caused by the move.
        let site_writes = requests.iter().filter(|it| it.resource == "frappesites" && it.is_work_write()).count();
        let history = History::read(&members.cluster.logs)?;
        let mut unowned = history.unowned(self.begun, gone);
        unowned.sort_by(f64::total_cmp);
        let shown = match (unowned.get(unowned.len() / 2), unowned.last()) {
            (Some(middle), Some(most)) => {
                format!("; {} slots unowned p50 {middle:.1} s, at most {most:.1} s", unowned.len())
            }
            _ => String::new(),
        };
        println!(
            "| {} | {edits} | {p50} | {p99} | {most} | {} ({} refused) | {site_writes} | {}{shown} |",
            self.name,
            landed.len(),
            refused.len(),
            history.violations().len()
        );
        Ok(())
    }
}

fn others(members: &Members<'_>) -> Vec<String> {
    members.running.keys().filter(|it| *it != "one").cloned().collect()
}

fn table_head() {
    println!(
        "\n| scenario | edits | p50 ms | p99 ms | max ms | map writes | other writes to sites | writes by a non-owner |"
    );
    println!("|---|---|---|---|---|---|---|---|");
}

/// Scales from one replica to this number.
pub(crate) async fn scale(members: &mut Members<'_>, editor: &Editor, count: usize) -> anyhow::Result<()> {
    table_head();
    let measurement = Measurement::begin(&format!("1 to {count} members"), editor);
    for index in 2..=count {
        members.start(&format!("member-{index}")).await?;
    }
    measurement.end(members, editor, &[]).await
}

/// Runs all fault scenarios.
pub(crate) async fn scenarios(members: &mut Members<'_>, editor: &Editor, only: &str) -> anyhow::Result<()> {
    table_head();
    let wanted = |name: &str| name.contains(only);
    if wanted("restart") {
        let measurement = Measurement::begin("rolling restart of all", editor);
        for name in members.running.keys().cloned().collect::<Vec<_>>() {
            let next = format!("{name}r");
            members.start(&next).await?;
            members.stop(&name).await?;
        }
        measurement.end(members, editor, &[]).await?;
    }
    if wanted("kill") {
        let coordinator = members.coordinator().await?;
        let name = others(members).into_iter().find(|it| *it != coordinator).unwrap_or_default();
        kill(members, editor, &name, "kill -9").await?;
        kill(members, editor, &coordinator, "kill -9 of the coordinator").await?;
    }
    if wanted("stop") {
        pause(members, editor).await?;
    }
    if wanted("cut") {
        cut(members, editor, Mode::Cut, "cut off for 45 s").await?;
        cut(members, editor, Mode::HalfOpen, "half-open for 45 s").await?;
    }
    if wanted("outage") {
        outage(members, editor).await?;
    }
    if wanted("map") {
        let measurement = Measurement::begin("map deleted by hand", editor);
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        members.cluster.kubectl(&["delete", "slotmap", "frappe-operator", "-n", NAMESPACE, "--wait=false"], "")?;
        members
            .cluster
            .kubectl(&["patch", "slotmap", "frappe-operator", "-n", NAMESPACE, "--type=merge", "-p", patch], "")?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        measurement.end(members, editor, &[]).await?;
    }
    if wanted("scale") {
        let measurement = Measurement::begin("5 to 2 members", editor);
        for name in members.running.keys().skip(2).cloned().collect::<Vec<_>>() {
            members.stop(&name).await?;
        }
        measurement.end(members, editor, &[]).await?;
    }
    Ok(())
}

async fn kill(members: &mut Members<'_>, editor: &Editor, name: &str, shown: &str) -> anyhow::Result<()> {
    let measurement = Measurement::begin(shown, editor);
    let Some(mut member) = members.running.remove(name) else { return Ok(()) };
    member.operator.kill()?;
    measurement.end(members, editor, &[member.uid]).await?;
    members.start(&format!("{name}k")).await?;
    members.settled(SETTLE).await
}

async fn pause(members: &mut Members<'_>, editor: &Editor) -> anyhow::Result<()> {
    let measurement = Measurement::begin("SIGSTOP for 45 s, then SIGCONT", editor);
    let Some((_, member)) = members.running.iter().next() else { return Ok(()) };
    let gone = member.uid.clone();
    member.operator.signal("STOP")?;
    tokio::time::sleep(PAUSE).await;
    member.operator.signal("CONT")?;
    measurement.end(members, editor, &[gone]).await
}

async fn cut(members: &mut Members<'_>, editor: &Editor, mode: Mode, shown: &str) -> anyhow::Result<()> {
    let measurement = Measurement::begin(shown, editor);
    let Some((_, member)) = members.running.iter().next_back() else { return Ok(()) };
    let gone = member.uid.clone();
    let Some(proxy) = &member.proxy else { return Ok(()) };
    proxy.set(mode);
    tokio::time::sleep(PAUSE).await;
    proxy.set(Mode::Open);
    measurement.end(members, editor, &[gone]).await
}

/// Pauses the API server: requests get no response.
async fn outage(members: &mut Members<'_>, editor: &Editor) -> anyhow::Result<()> {
    let measurement = Measurement::begin("API server stopped for 60 s", editor);
    let before = members.map().await?.map(|map| map.content.generation);
    members.cluster.signal_api_server("STOP")?;
    tokio::time::sleep(OUTAGE).await;
    members.cluster.signal_api_server("CONT")?;
    measurement.end(members, editor, &[]).await?;
    let after = members.map().await?.map(|map| map.content.generation);
    println!("  (generation of the map before and after the outage: {before:?}, {after:?})");
    Ok(())
}
