//! A cluster of a test or of the demo is removed however the test or the demo ends.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/loadtest/controlplane/cluster");

fn hold(name: &str) -> Child {
    let mut command = Command::new(SCRIPT);
    command.args(["hold", name]).env("NODES", "0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Ctrl-C is also sent to the process that removes the cluster, and then the process that holds the cluster ends.
#[test]
fn an_interrupted_test_leaves_no_cluster() {
    let name = format!("held-{}", std::process::id());
    let mut holder = hold(&name);
    let mut output = BufReader::new(holder.stdout.take().unwrap());
    let mut kubeconfig = String::new();
    output.read_line(&mut kubeconfig).unwrap();
    let kubeconfig = Path::new(kubeconfig.trim());
    let folder = kubeconfig.with_file_name("clusters").join(&name);
    let ids: Vec<String> = folder.join("pids").read_dir().unwrap().map(|it| it.unwrap().path()).map(read).collect();
    assert!(ids.len() >= 4 && ids.iter().all(|id| is_running(id)), "{ids:?}");

    kill_process(Pid::from_child(&holder), Signal::INT).unwrap();
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert!(!folder.exists() && !kubeconfig.exists(), "{} is left", folder.display());
    let left: Vec<_> = ids.iter().filter(|id| is_running(id)).collect();
    assert!(left.is_empty(), "processes are left: {left:?}");
}

/// The script's output has no reader then.
#[test]
fn a_test_that_is_killed_while_its_cluster_starts_leaves_none() {
    let name = format!("orphan-{}", std::process::id());
    let mut holder = hold(&name);
    drop((holder.stdin.take(), holder.stdout.take()));
    holder.wait().unwrap();
    let path = Command::new(SCRIPT).args(["kubeconfig", &name]).output().unwrap().stdout;
    let kubeconfig = PathBuf::from(String::from_utf8(path).unwrap().trim());
    let folder = kubeconfig.with_file_name("clusters").join(&name);
    assert!(!folder.exists() && !kubeconfig.exists(), "{} is left", folder.display());
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// Whether a process is running; a zombie is not.
fn is_running(id: &str) -> bool {
    std::fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|it| !it.is_empty())
}
