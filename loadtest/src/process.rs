//! The operator as a process that uses a test cluster.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::cluster::Cluster;

/// Namespace of the operator in test clusters.
pub const NAMESPACE: &str = "frappe-operator-system";

/// Options for starting the operator.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Crash after this many writes.
    pub crash_after_writes: Option<i64>,
    /// uid of its simulated pod; random if None.
    pub pod_uid: Option<String>,
    /// Lease duration, in seconds; 15 if None.
    pub lease_seconds: Option<u64>,
    /// Name of its simulated pod; generated if None.
    pub pod_name: Option<String>,
    /// pod-template-hash of that pod.
    pub template: Option<String>,
    /// Kubeconfig other than the cluster administrator's.
    pub kubeconfig: Option<PathBuf>,
    /// Level and format of its log; `info,frappe_operator=debug` and `text` if None.
    pub log: Option<(&'static str, &'static str)>,
    /// Shell command that starts another operator instead. `KUBECONFIG` is set; `{port}`, `{member}` and `{namespace}` are
    /// replaced by a free port for its metrics, its name, and its namespace.
    pub command: Option<String>,
}

/// A running operator; killed when dropped.
pub struct Operator {
    child: Child,
    /// Port of its HTTP server on loopback.
    pub port: u16,
    /// Its log.
    pub log: PathBuf,
}

impl Operator {
    /// Starts the program in a cluster.
    pub fn start(program: &Path, cluster: &Cluster, options: &Options) -> anyhow::Result<Self> {
        // In a real cluster, the chart creates namespace and Secret; here they may exist.
        cluster.kubectl(&["create", "namespace", NAMESPACE], "")?;
        cluster.kubectl(&["create", "secret", "generic", "frappe-operator-hash-key", "-n", NAMESPACE], "")?;
        let port = free_port()?;
        let log = cluster.logs.join(format!("operator-{port}.log"));
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = match &options.command {
            Some(text) => shell(text, port, options),
            None => own(program, port, options),
        };
        command
            .env("KUBECONFIG", options.kubeconfig.as_ref().unwrap_or(&cluster.kubeconfig))
            .env("LOG_LEVEL", options.log.map_or("info,frappe_operator=debug", |it| it.0))
            .env("NO_COLOR", "1")
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child, port, log })
    }

    /// Waits until /readyz reports that it is ready.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        for _ in 0..600 {
            if let Some(status) = self.child.try_wait()? {
                bail!("the operator ended with {status}: {}", self.log_tail());
            }
            if self.http("/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the operator did not become ready: {}", self.log_tail())
    }

    /// The response to a GET, with its header.
    pub async fn http(&self, path: &str) -> anyhow::Result<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it ends without a signal.
    pub async fn wait(&mut self, most: Duration) -> anyhow::Result<ExitStatus> {
        let end = std::time::Instant::now() + most;
        while std::time::Instant::now() < end {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the operator did not end: {}", self.log_tail())
    }

    /// Sends SIGTERM and waits for its end.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        self.wait(Duration::from_secs(40)).await
    }

    /// Sends a signal, such as STOP.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status()?;
        Ok(())
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines of its log.
    pub fn log_lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let lines = self.log_lines();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Command of this project's operator, with its flags.
fn own(program: &Path, port: u16, options: &Options) -> Command {
    let mut command = Command::new(program);
    command
        .args(["run", "--log-format", options.log.map_or("text", |it| it.1), "--namespace", NAMESPACE])
        .arg(format!("--metrics-bind-address=127.0.0.1:{port}"))
        .env("OPERATOR_IMAGE", "docker.io/library/frappe-operator:test");
    if let Some(writes) = options.crash_after_writes {
        command.arg(format!("--crash-after-writes={writes}"));
    }
    if let Some(uid) = &options.pod_uid {
        command.arg(format!("--pod-uid={uid}"));
    }
    if let Some(name) = &options.pod_name {
        command.arg(format!("--pod-name={name}"));
    }
    if let Some(template) = &options.template {
        command.arg(format!("--pod-template-hash={template}"));
    }
    if let Some(seconds) = options.lease_seconds {
        command.arg(format!("--lease-duration={seconds}s")).arg("--lease-renew-interval=500ms");
    }
    command
}

/// Command of another operator: the shell is replaced by it, so that the process id is the operator's.
fn shell(text: &str, port: u16, options: &Options) -> Command {
    let member = options.pod_name.as_deref().unwrap_or("member");
    let text = text.replace("{port}", &port.to_string()).replace("{member}", member).replace("{namespace}", NAMESPACE);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {text}")]);
    command
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
