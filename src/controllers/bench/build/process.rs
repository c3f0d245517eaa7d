//! Start and termination of a container's main process.
//!
//! It is process 1, for which the kernel drops every signal that it neither handles nor blocks: a SIGTERM that arrives while
//! Python still imports is lost, and the terminating pod continues until it is killed in the middle of a job. Therefore the
//! kubelet sends SIGTERM only after it is handled.
//!
//! Requests are still routed to a terminating pod for a while, until each node and each ingress controller knows that it has
//! left its Service. Therefore pods that serve requests continue for that time before they receive SIGTERM.

use k8s_openapi::api::core::v1::{ExecAction, Lifecycle, LifecycleHandler};

/// Whether process 1 handles SIGTERM, or blocks it to pass it on as an init program does. Both are masks in hexadecimal,
/// in which signal 15 is bit 4 of the fourth digit from the right. If the kernel of a sandbox does not report them, there is
/// no wait.
const HANDLES_SIGTERM: &str = "grep -qE '^Sig(Cgt|Blk):[[:space:]]*[0-9a-f]*[4-7c-f][0-9a-f]{3}$' /proc/1/status \
    || ! grep -q ^SigCgt: /proc/1/status";
/// Longest wait for that, in seconds: a process that never handles it is stopped anyway.
const HANDLER_SECONDS_MAX: i64 = 60;

/// Seconds for which a terminating pod continues to serve requests that are still routed to it.
pub(in crate::controllers) const DRAIN_SECONDS: i64 = 10;
/// The same, in a shell, before something else.
pub(in crate::controllers) const DRAIN: &str = "sleep 10; ";

/// The command of a probe: whether the main process can be stopped. A worker handles SIGTERM once it has registered itself
/// at Redis, just before it takes its first job.
pub(super) fn catches_termination() -> [&'static str; 3] {
    ["sh", "-c", HANDLES_SIGTERM]
}

/// The hook that delays SIGTERM until the process handles it, for at most half of the termination grace period.
pub(super) fn await_termination_handler(grace_seconds: i64) -> Lifecycle {
    pre_stop(&handler_wait(grace_seconds))
}

/// The hook that delays SIGTERM while requests are still routed to the pod.
pub(super) fn drain_requests() -> Lifecycle {
    pre_stop(DRAIN.trim_end_matches("; "))
}

/// Both hooks, one after the other; `grace_seconds` is what remains after the first.
pub(super) fn drain_and_await_termination_handler(grace_seconds: i64) -> Lifecycle {
    pre_stop(&format!("{DRAIN}{}", handler_wait(grace_seconds)))
}

fn handler_wait(grace_seconds: i64) -> String {
    let most = (grace_seconds / 2).min(HANDLER_SECONDS_MAX);
    format!("left={most}; until {HANDLES_SIGTERM} || [ $left -le 0 ]; do left=$((left - 1)); sleep 1; done")
}

fn pre_stop(script: &str) -> Lifecycle {
    let exec = ExecAction { command: Some(["sh", "-c", script].map(str::to_owned).into()) };
    let pre_stop = LifecycleHandler { exec: Some(exec), ..LifecycleHandler::default() };
    Lifecycle { pre_stop: Some(pre_stop), ..Lifecycle::default() }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    /// How many seconds the hook waits, with this text instead of the status file of process 1.
    fn waited(grace_seconds: i64, status: &str) -> usize {
        seconds_of(await_termination_handler(grace_seconds), status)
    }

    fn seconds_of(hook: Lifecycle, status: &str) -> usize {
        let command = hook.pre_stop.and_then(|it| it.exec?.command).expect("a command");
        let script = &command[2].replace("sleep 10", "seq 10");
        let script = script.replace("grep", "printf '%s' \"$STATUS\" | grep").replace(" /proc/1/status", "");
        let script = script.replace("sleep 1", "echo second");
        let output = Command::new("sh").args(["-c", &script]).env("STATUS", status).output().expect("a shell");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().count()
    }

    #[test]
    fn sigterm_is_delayed_until_it_is_handled_for_at_most_a_minute() {
        let status = |caught: &str, blocked: &str| {
            format!("Name:\tpython\nSigBlk:\t{blocked}\nSigIgn:\t0000000001005000\nSigCgt:\t{caught}\n")
        };
        let none = "0000000000000000";
        // While Python imports modules, it handles only SIGINT; rq's worker also handles SIGTERM; gunicorn handles many.
        assert_eq!(waited(360, &status("0000000000000002", none)), 60);
        assert_eq!(
            waited(20, &status("0000000000000002", none)),
            10,
            "half of the grace period is left for the termination"
        );
        assert_eq!(waited(360, &status("0000000000004002", none)), 0);
        assert_eq!(waited(360, &status("000000000801ce03", none)), 0);
        assert_eq!(waited(360, &status(none, "fffffffe7ffbfeff")), 0, "an init program blocks it");
        assert_eq!(waited(360, "Name:\tpython\nThreads:\t1\n"), 0, "a kernel that does not report signals");
        assert_eq!(waited(360, &status("0000000000003fff", "ffffffffffff8000")), 60, "every signal except SIGTERM");
    }

    #[test]
    fn servers_continue_while_requests_are_routed_to_them() {
        let deaf = "SigBlk:\t0000000000000000\nSigCgt:\t0000000000000002\n";
        let hears = "SigBlk:\t0000000000000000\nSigCgt:\t0000000000004002\n";
        assert_eq!(DRAIN, format!("sleep {DRAIN_SECONDS}; "));
        assert_eq!(seconds_of(drain_requests(), deaf), 10);
        assert_eq!(seconds_of(drain_and_await_termination_handler(20), hears), 10);
        assert_eq!(seconds_of(drain_and_await_termination_handler(20), deaf), 20);
    }

    /// The masks of a real process that does or does not handle SIGTERM.
    #[test]
    fn the_mask_of_a_real_process_is_read() {
        for (script, heard) in [("trap : TERM; echo ready; read -r _", true), ("echo ready; exec sleep 60", false)] {
            // A shell cannot handle a signal that was ignored when it started.
            let mut process = Command::new("env");
            let process = process.args(["--default-signal=TERM", "bash", "-c", script]);
            let mut process = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash");
            let mut line = String::new();
            BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
            let own = HANDLES_SIGTERM.replace("/proc/1/", &format!("/proc/{}/", process.id()));
            let status = Command::new("sh").args(["-c", &own]).status();
            process.kill().and_then(|()| process.wait()).expect("its end");
            assert_eq!(status.expect("a shell").success(), heard, "{script}");
        }
    }
}
