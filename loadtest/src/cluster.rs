//! A cluster of the test control plane: it is removed when it is dropped, and also when this process is killed.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    audit::{self, Agents},
    rights,
};

/// The script that starts and removes clusters.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/controlplane/cluster");

/// A real Kubernetes control plane with kwok's nodes.
pub struct Cluster {
    name: String,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
    /// Folder of its logs; `audit.log` contains one line for each request.
    pub logs: PathBuf,
    /// Removes the cluster when its standard input is closed, which only this process holds open.
    holder: Child,
}

impl Cluster {
    /// Starts a cluster whose name begins with `purpose`. Several can run at the same time.
    pub fn start(purpose: &str, nodes: u32) -> anyhow::Result<Self> {
        Self::start_with(purpose, nodes, &[])
    }

    /// Like [`Cluster::start`], with variables for the script: `AUDIT_POLICY` is a file in its folder, `FEATURE_GATES` are the API
    /// server's.
    pub fn start_with(purpose: &str, nodes: u32, variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let name = format!("{purpose}-{}", std::process::id());
        let mut holder = script(&["hold", &name])
            .env("NODES", nodes.to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {SCRIPT}"))?;
        let mut kubeconfig = String::new();
        BufReader::new(holder.stdout.take().context("no standard output")?).read_line(&mut kubeconfig)?;
        if kubeconfig.is_empty() {
            bail!("start cluster {name}: {}", holder.wait()?);
        }
        let output = script(&["logs", &name]).output().with_context(|| format!("run {SCRIPT}"))?;
        let logs = String::from_utf8(output.stdout)?.trim().into();
        Ok(Self { kubeconfig: kubeconfig.trim().into(), logs, name, holder })
    }

    /// Name of the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A client with the permissions of the cluster's administrator.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// Process id of its API server.
    pub fn api_server_id(&self) -> anyhow::Result<u32> {
        self.process_id("kube-apiserver")
    }

    fn process_id(&self, component: &str) -> anyhow::Result<u32> {
        let path = self.logs.join(format!("../pids/{component}.pid"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(text.trim().parse()?)
    }

    /// Stops its controller manager and scheduler, which cache all objects: for a test with gigabytes of objects.
    pub fn end_controllers(&self) -> anyhow::Result<()> {
        for component in ["kube-controller-manager", "kube-scheduler"] {
            Command::new("kill").args(["-KILL".to_owned(), self.process_id(component)?.to_string()]).status()?;
        }
        Ok(())
    }

    /// Sends a signal to its API server: STOP pauses it, CONT resumes it.
    pub fn signal_api_server(&self, signal: &str) -> anyhow::Result<()> {
        Command::new("kill").args([format!("-{signal}"), self.api_server_id()?.to_string()]).status()?;
        Ok(())
    }

    /// Kills its API server, which would otherwise wait a minute for its watches, and restarts it with the same arguments; returns
    /// once it is ready.
    pub async fn restart_api_server(&self) -> anyhow::Result<()> {
        let id = self.api_server_id()?;
        let line = std::fs::read(format!("/proc/{id}/cmdline"))?;
        let arguments = line.split(|byte| *byte == 0).filter(|it| !it.is_empty());
        let arguments: Vec<String> = arguments.map(|it| String::from_utf8_lossy(it).into_owned()).collect();
        let folder = std::fs::read_link(format!("/proc/{id}/cwd"))?;
        self.signal_api_server("KILL")?;
        let port =
            arguments.iter().find_map(|it| it.strip_prefix("--secure-port=")).context("the API server's port")?;
        let address = format!("127.0.0.1:{port}");
        // The process may have no entry in /proc while one of its threads still holds the socket.
        while std::net::TcpListener::bind(&address).is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        // Not a child of this process, as with kwokctl: the cluster's removal finds it by the recorded process id.
        let start = "\"$@\" >>\"$LOG\" 2>&1 </dev/null & echo $! >\"$ID\"";
        let status = Command::new("setsid")
            .args(["sh", "-c", start, "sh"])
            .args(&arguments)
            .current_dir(folder)
            .env("LOG", self.logs.join("kube-apiserver.log"))
            .env("ID", self.logs.join("../pids/kube-apiserver.pid"))
            .status()?;
        anyhow::ensure!(status.success(), "the API server was not restarted");
        for _ in 0..600 {
            if self.kubectl(&["get", "--raw", "/readyz"], "")?.success {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let log = std::fs::read_to_string(self.logs.join("kube-apiserver.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        bail!(
            "the API server did not become ready after the restart: {}",
            lines[lines.len().saturating_sub(5)..].join("\n")
        )
    }

    /// Runs kubectl for the cluster, with `input` as its standard input; returns exit status, output and errors.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        use std::io::Write;
        let mut child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run kubectl: it must be on PATH")?;
        child.stdin.take().context("kubectl has no standard input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        Ok(Output {
            success: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Applies manifests with strict validation.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        let output = self.kubectl(&["apply", "--server-side", "--validate=strict", "-f", "-"], manifests)?;
        if !output.success {
            bail!("kubectl apply: {}", output.errors);
        }
        Ok(())
    }
}

impl Cluster {
    /// Records which permissions the operator used in this cluster.
    fn note_rights(&self, folder: &Path) -> anyhow::Result<()> {
        rights::note(&audit::requests_by(&self.logs, &Agents::Ours)?, &self.name, folder)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(folder) = std::env::var_os(rights::FOLDER)
            && let Err(error) = self.note_rights(Path::new(&folder))
        {
            eprintln!("permissions used in cluster {} were not recorded: {error:#}", self.name);
        }
        drop(self.holder.stdin.take());
        match self.holder.wait() {
            Ok(status) if status.success() => {}
            ended => eprintln!("cluster {} was not removed: {ended:?}", self.name),
        }
    }
}

/// The result of a program.
#[derive(Debug)]
pub struct Output {
    /// Whether it succeeded.
    pub success: bool,
    /// Its output.
    pub out: String,
    /// Its errors.
    pub errors: String,
}

fn script(arguments: &[&str]) -> Command {
    let mut command = Command::new(SCRIPT);
    command.args(arguments).stderr(Stdio::inherit());
    command
}
