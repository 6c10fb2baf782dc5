//! Pods of busybox that run to their end, and what they print.

use serde_json::{Value, json};

use super::shared::Place;
use crate::cluster::DEADLINE;

/// The name of the Pod, and of its only container.
pub(super) const NAME: &str = "test";

/// A container that runs a script.
pub(super) fn container(script: &str) -> Value {
    json!({"name": NAME, "image": "busybox:v1", "command": ["sh", "-c", script]})
}

/// Runs a Pod of one container to its end, which must be a good one: what it prints.
#[track_caller]
pub(super) fn output(place: &Place, container: &Value, mut pod: Value) -> String {
    pod["restartPolicy"] = json!("Never");
    pod["containers"] = json!([container]);
    place.make("Pod", NAME, &pod);
    wait_for_phase(place, "Succeeded");
    place.ok(&["logs", NAME])
}

/// The same of a script and of a volume at `/volume`; `user` is the Pod's `securityContext`.
#[track_caller]
pub(super) fn output_with(place: &Place, script: &str, mut volume: Value, user: Value) -> String {
    let mut container = container(script);
    container["volumeMounts"] = json!([{"name": "volume", "mountPath": "/volume"}]);
    volume["name"] = json!("volume");
    let pod = json!({"volumes": [volume], "securityContext": user});
    output(place, &container, pod)
}

/// Waits for the Pod to be in a phase.
#[track_caller]
pub(super) fn wait_for_phase(place: &Place, phase: &str) {
    let wanted = format!("--for=jsonpath={{.status.phase}}={phase}");
    let timeout = format!("--timeout={}s", DEADLINE.as_secs());
    let output = place.run(&["wait", "pod", NAME, &wanted, &timeout]);
    let shown = || place.ok(&["describe", "pod", NAME]);
    assert!(output.status.success(), "not {phase}: {}", shown());
}
