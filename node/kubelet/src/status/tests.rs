//! Tables for phases, conditions and the statuses of containers.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use coracle_runtime::{
    Container, ContainerConfig, ContainerId, ContainerState, Exit, PodIdentity, SandboxId,
};
use serde_json::{Value, json};

use super::conditions::{Facts, conditions};
use super::phase::phase;
use super::*;
use crate::probes::Results;

fn pod(policy: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 3},
        "spec": {
            "restartPolicy": policy,
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b"}],
        },
    }))
    .unwrap()
}

/// `run`, `wait`, an exit code, or `back` and an exit code for a back-off.
fn status(name: &str, state: &str) -> ContainerStatus {
    let ended = |code: &str| json!({"terminated": {"exitCode": code.parse::<i32>().unwrap()}});
    let (state, last) = match state.split_once(' ') {
        Some((_, code)) => (json!({"waiting": {}}), ended(code)),
        None if state == "run" => (json!({"running": {}}), json!({})),
        None if state == "wait" => (json!({"waiting": {}}), json!({})),
        None => (ended(state), json!({})),
    };
    serde_json::from_value(json!({
        "name": name, "image": "", "imageID": "", "ready": state["running"].is_object(),
        "restartCount": 0, "state": state, "lastState": last,
    }))
    .unwrap()
}

#[test]
fn phases() {
    // Policy, init container, initialized, the two containers, terminated, phase.
    let table = [
        ("Always", "wait", false, ["wait", "wait"], false, "Pending"),
        ("Always", "run", false, ["wait", "wait"], false, "Pending"),
        ("Always", "1", false, ["wait", "wait"], false, "Pending"),
        (
            "Always",
            "back 1",
            false,
            ["wait", "wait"],
            false,
            "Pending",
        ),
        ("Never", "1", false, ["wait", "wait"], false, "Failed"),
        ("Always", "0", true, ["wait", "run"], false, "Pending"),
        ("Always", "0", true, ["run", "run"], false, "Running"),
        ("Always", "0", true, ["run", "1"], false, "Running"),
        ("Always", "0", true, ["run", "back 1"], false, "Running"),
        ("Always", "0", true, ["back 1", "back 1"], false, "Running"),
        ("Always", "0", true, ["0", "0"], false, "Running"),
        ("OnFailure", "0", true, ["0", "1"], false, "Running"),
        ("OnFailure", "0", true, ["0", "0"], false, "Succeeded"),
        ("Never", "0", true, ["0", "0"], false, "Succeeded"),
        ("Never", "0", true, ["0", "1"], false, "Failed"),
        ("Never", "0", true, ["0", "run"], false, "Running"),
        // Ended from outside.
        ("Always", "0", true, ["0", "0"], true, "Succeeded"),
        ("Always", "0", true, ["0", "137"], true, "Failed"),
        ("Always", "wait", false, ["wait", "wait"], true, "Failed"),
    ];
    for (policy, init, initialized, states, terminated, expected) in table {
        let inits = [status("i", init)];
        let apps = [status("a", states[0]), status("b", states[1])];
        let got = phase(&pod(policy), &inits, &apps, initialized, terminated);
        assert_eq!(got, expected, "{policy} {init} {states:?} {terminated}");
    }
}

fn found(pod: &Pod, apps: &[ContainerStatus], phase: &str, initialized: bool) -> Vec<Value> {
    let inits = [status("i", "0")];
    let made = conditions(&Facts {
        pod,
        old: pod::status(pod),
        inits: &inits,
        apps,
        phase,
        initialized,
        anew: false,
        ready_to_start: true,
        resize: &Unfinished::default(),
        resizes: false,
        disrupted: None,
        now: SystemTime::UNIX_EPOCH,
    });
    made.iter()
        .map(|c| serde_json::to_value(c).unwrap())
        .collect()
}

fn of<'a>(conditions: &'a [Value], type_: &str) -> &'a Value {
    conditions.iter().find(|c| c["type"] == type_).unwrap()
}

#[test]
fn conditions_say_what_is_missing() {
    let up = [status("a", "run"), status("b", "run")];
    let half = [status("a", "run"), status("b", "wait")];
    let all = found(&pod("Always"), &up, "Running", true);
    for type_ in [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ] {
        assert_eq!(of(&all, type_)["status"], "True", "{type_}");
        assert_eq!(of(&all, type_)["observedGeneration"], 3);
    }
    let some = found(&pod("Always"), &half, "Pending", true);
    for type_ in ["Ready", "ContainersReady"] {
        let condition = of(&some, type_);
        assert_eq!(condition["reason"], "ContainersNotReady");
        assert_eq!(condition["message"], "containers with unready status: [b]");
    }
    let begun = found(&pod("Always"), &half, "Pending", false);
    let initialized = of(&begun, "Initialized");
    assert_eq!(initialized["reason"], "ContainersNotInitialized");
    assert_eq!(
        initialized["message"],
        "containers with incomplete status: [i]"
    );
    for (phase, reason) in [("Succeeded", "PodCompleted"), ("Failed", "PodFailed")] {
        let ended = found(&pod("Never"), &up, phase, true);
        assert_eq!(of(&ended, "Ready")["reason"], reason);
        assert_eq!(of(&ended, "Ready")["status"], "False");
    }
}

#[test]
fn readiness_gates_hold_a_pod_back() {
    let up = [status("a", "run"), status("b", "run")];
    let mut gated = pod("Always");
    gated.spec.as_mut().unwrap().readiness_gates =
        Some(serde_json::from_value(json!([{"conditionType": "example.com/ok"}])).unwrap());
    let closed = found(&gated, &up, "Running", true);
    assert_eq!(of(&closed, "ContainersReady")["status"], "True");
    let ready = of(&closed, "Ready");
    assert_eq!(ready["reason"], "ReadinessGatesNotReady");
    let message =
        "corresponding condition of pod readiness gate \"example.com/ok\" does not exist.";
    assert_eq!(ready["message"], message);
    for (value, expected) in [("False", "False"), ("True", "True")] {
        gated.status = Some(
            serde_json::from_value(json!({"conditions": [
                {"type": "example.com/ok", "status": value},
            ]}))
            .unwrap(),
        );
        let now = found(&gated, &up, "Running", true);
        assert_eq!(of(&now, "Ready")["status"], expected, "{value}");
    }
}

#[test]
fn times_of_transition_are_kept() {
    let up = [status("a", "run"), status("b", "run")];
    let mut pod = pod("Always");
    pod.status = Some(
        serde_json::from_value(json!({"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Initialized", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]}))
        .unwrap(),
    );
    let now = found(&pod, &up, "Running", true);
    assert_eq!(
        of(&now, "Ready")["lastTransitionTime"],
        "2026-01-01T00:00:00Z"
    );
    assert_eq!(
        of(&now, "Initialized")["lastTransitionTime"],
        "1970-01-01T00:00:00Z"
    );
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
}

/// Reads `run` or an exit code.
fn runs(runtime: &mut PodRuntime, name: &str, state: &str) {
    let state = match state {
        "run" => ContainerState::Running { started_at: at(1) },
        code => ContainerState::Exited(Exit {
            started_at: Some(at(1)),
            finished_at: at(2),
            code: code.parse().unwrap(),
            reason: "Error".to_owned(),
            message: String::new(),
        }),
    };
    let container = Container {
        id: ContainerId(name.to_owned()),
        sandbox: SandboxId("s".to_owned()),
        pod: PodIdentity {
            namespace: "ns".to_owned(),
            name: "p".to_owned(),
            uid: "u".to_owned(),
        },
        config: ContainerConfig {
            name: name.to_owned(),
            ..Default::default()
        },
        state,
        user: None,
        created_at: at(0),
    };
    runtime.put_container("wasm", container);
}

/// The status of an initialized Pod with these failures.
fn whole(
    pod: &Pod,
    old: &PodStatus,
    runtime: &PodRuntime,
    failures: &BTreeMap<String, Failure>,
) -> Value {
    let actions = Actions {
        initialized: true,
        ..Actions::default()
    };
    let status = pod_status(&StatusInput {
        pod,
        old,
        runtime,
        actions: &actions,
        failures,
        probes: &Results::default(),
        messages: &BTreeMap::new(),
        allocation: None,
        resize: &Unfinished::default(),
        pod_ips: &[],
        host_ips: &[],
        ready_to_start: true,
        terminated: false,
        verdict: None,
        now: at(3),
    });
    serde_json::to_value(status).unwrap()
}

#[test]
fn a_failed_hook_is_shown_until_its_container_runs_again() {
    let failure = Failure {
        reason: Failure::HOOK,
        message: "why".to_owned(),
        retry_at: at(2),
        settle_at: None,
    };
    let failures = BTreeMap::from([("a".to_owned(), failure)]);
    // Policy, code; whether it waits.
    for (policy, code, waits) in [
        ("Always", "0", true),
        ("Always", "137", true),
        ("OnFailure", "137", true),
        ("OnFailure", "0", false),
        ("Never", "137", false),
    ] {
        let mut runtime = PodRuntime::default();
        runs(&mut runtime, "a", code);
        runs(&mut runtime, "b", "run");
        let made = whole(&pod(policy), &PodStatus::default(), &runtime, &failures);
        let status = &made["containerStatuses"][0];
        let ended = match waits {
            true => {
                let waiting =
                    json!({"waiting": {"reason": "PostStartHookError", "message": "why"}});
                assert_eq!(status["state"], waiting, "{policy} {code}");
                &status["lastState"]
            }
            false => &status["state"],
        };
        let code: i64 = code.parse().unwrap();
        assert_eq!(ended["terminated"]["exitCode"], code, "{policy}");
        assert_eq!(made["phase"], "Running");
    }
}

#[test]
fn what_has_vanished_has_ended_in_an_unknown_way() {
    let running = |last: Value| {
        let old = json!({"phase": "Running", "containerStatuses": [{
            "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 2,
            "containerID": "wasm://x", "state": {"running": {}}, "lastState": last,
        }]});
        serde_json::from_value::<PodStatus>(old).unwrap()
    };
    let (pod, none) = (pod("Always"), BTreeMap::new());
    let mut runtime = PodRuntime::default();
    runs(&mut runtime, "b", "run");
    // How it ended before; how often it was started then, and how it ended last.
    let ended = json!({"terminated": {"exitCode": 7}});
    for (last, count, code) in [(json!({}), 3, 137), (ended, 2, 7)] {
        let mut old = running(last);
        // It is told once.
        for _ in 0..2 {
            let made = whole(&pod, &old, &runtime, &none);
            let status = &made["containerStatuses"][0];
            assert_eq!(status["restartCount"], count);
            assert_eq!(status["lastState"]["terminated"]["exitCode"], code);
            assert_eq!(status["state"]["waiting"]["reason"], "PodInitializing");
            assert_eq!(made["phase"], "Running");
            let init = &made["initContainerStatuses"][0];
            assert_eq!(init["state"]["terminated"]["reason"], "Completed");
            assert_eq!(init["ready"], true);
            old = serde_json::from_value(made).unwrap();
        }
    }
    // The next one runs before anything was told.
    runs(&mut runtime, "a", "run");
    runtime.containers[1].container.config.attempt = 3;
    let made = whole(&pod, &running(json!({})), &runtime, &none);
    let last = &made["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["reason"], "ContainerStatusUnknown");
}

#[test]
fn what_has_vanished_and_does_not_run_again_has_ended() {
    let ended = |code: i32| json!({"terminated": {"exitCode": code}});
    let running = json!({"running": {}});
    for (policy, state, last, code) in [
        ("Never", &running, json!({}), 137),
        ("Never", &running, ended(7), 137),
        ("Never", &ended(0), json!({}), 0),
        ("Never", &ended(3), json!({}), 3),
        ("OnFailure", &ended(0), json!({}), 0),
    ] {
        let old = json!({"phase": "Running", "containerStatuses": [{
            "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 2,
            "containerID": "wasm://x", "state": state, "lastState": last,
        }]});
        let old = serde_json::from_value(old).unwrap();
        let none = BTreeMap::new();
        let made = whole(&pod(policy), &old, &PodRuntime::default(), &none);
        let status = &made["containerStatuses"][0];
        assert_eq!(status["state"]["terminated"]["exitCode"], code, "{policy}");
        let unknown = status["state"]["terminated"]["reason"] == "ContainerStatusUnknown";
        assert_eq!(unknown, code == 137, "{policy} {status}");
        assert_eq!(status["restartCount"], 2);
        assert_eq!(status["containerID"], "wasm://x");
    }
}

#[test]
fn what_was_removed_to_begin_anew_has_not_failed() {
    let mut status = PodStatus {
        init_container_statuses: Some(vec![status("i", "0")]),
        container_statuses: Some(vec![status("a", "run"), status("b", "back 42")]),
        ..PodStatus::default()
    };
    super::containers::remove_all(&mut status);
    let (inits, apps) = (
        status.init_container_statuses.unwrap(),
        status.container_statuses.unwrap(),
    );
    // Who waited already is told nothing.
    for (of, count, code) in [(&inits[0], 1, 137), (&apps[0], 1, 137), (&apps[1], 0, 42)] {
        let last = of.last_state.as_ref().unwrap();
        let ended = last.terminated.as_ref().unwrap();
        assert_eq!((of.restart_count, ended.exit_code), (count, code));
        assert!(of.state.as_ref().unwrap().waiting.is_some() && !of.ready);
    }
    for (initialized, expected) in [(false, "Pending"), (true, "Running")] {
        let apps = &apps[..1];
        let found = phase(&pod("Never"), &inits, apps, initialized, false);
        assert_eq!(found, expected, "{initialized}");
    }
}
