//! What the process of a SiteJob has left, from the termination message of its Job. Pure.

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use super::job;

/// What the process of a SiteJob has left.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Run {
    /// Its exit code; negative if a signal ended it.
    pub exit: Option<i32>,
    /// The end of what it printed.
    pub output: Option<String>,
    /// Bytes of the output that are not in the log.
    pub omitted: i64,
    /// Whether `output` lacks the beginning, for want of room.
    pub cut: bool,
    /// The result of the method, as JSON.
    pub value: Option<String>,
}

/// The part of a termination message that is about it.
#[derive(Deserialize)]
struct Left {
    run: Option<Run>,
}

/// What the process has left, by the newest termination message; None if it was killed with the runner.
pub fn run(pods: &[Pod]) -> Option<Run> {
    serde_json::from_str::<Left>(job::message(pods)?).ok()?.run
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_read_of_a_success_and_of_a_failure() {
        let pod = |message: &str| -> Vec<Pod> {
            let terminated = json!({"exitCode": 30, "message": message, "finishedAt": "2026-01-01T00:00:00Z"});
            let status = json!({"name": "run", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": terminated}});
            vec![serde_json::from_value(json!({"status": {"containerStatuses": [status]}})).expect("a pod")]
        };
        let left = r#""run": {"exit": 3, "output": "no", "omitted": 7, "cut": true}"#;
        for message in [
            format!("{{\"result\": \"ran\", {left}}}"),
            format!("{{\"step\": \"x\", \"code\": \"CommandFailed\", {left}}}"),
        ] {
            let found = run(&pod(&message)).expect("a run");
            assert_eq!((found.exit, found.output.as_deref(), found.omitted, found.cut), (Some(3), Some("no"), 7, true));
        }
        assert_eq!(run(&pod("Killed")), None);
    }
}
