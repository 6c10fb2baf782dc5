//! Tables for the difference between what should run and what runs.
#![allow(clippy::unwrap_used)]

use coracle_runtime::{
    Container as RuntimeContainer, ContainerConfig, PodIdentity, PodSandbox, PodSandboxConfig,
};
use serde_json::{Value, json};

use super::*;
use crate::containers::lost::note;
use crate::probes::{ProbeKind, Results};

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
}

/// A Pod of containers `name`, `name!` for an init container, `name*` for a sidecar.
fn pod(policy: &str, names: &[&str]) -> Pod {
    let (mut inits, mut apps): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for name in names {
        let bare = name.trim_end_matches(['!', '*']);
        let container = |extra: Value| {
            let mut container = json!({"name": bare, "image": "i:1"});
            for (key, value) in extra.as_object().unwrap() {
                container[key] = value.clone();
            }
            container
        };
        match name.chars().last() {
            Some('!') => inits.push(container(json!({}))),
            Some('*') => inits.push(container(json!({"restartPolicy": "Always"}))),
            _ => apps.push(container(json!({}))),
        }
    }
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": inits, "containers": apps},
    }))
    .unwrap()
}

fn identity() -> PodIdentity {
    PodIdentity {
        namespace: "ns".to_owned(),
        name: "p".to_owned(),
        uid: "u".to_owned(),
    }
}

fn sandbox(id: &str, state: SandboxState) -> PodSandbox {
    PodSandbox {
        id: SandboxId(id.to_owned()),
        config: PodSandboxConfig {
            pod: identity(),
            ..Default::default()
        },
        state,
        created_at: at(0),
    }
}

fn container(name: &str, attempt: u32, state: ContainerState) -> RuntimeContainer {
    RuntimeContainer {
        id: ContainerId(format!("{name}-{attempt}")),
        sandbox: SandboxId("s".to_owned()),
        pod: identity(),
        config: ContainerConfig {
            name: name.to_owned(),
            attempt,
            image_digest: "sha256:0".to_owned(),
            image: "i:1".to_owned(),
            ..Default::default()
        },
        state,
        user: None,
        created_at: at(u64::from(attempt)),
    }
}

/// Reads `name=state`, with `name.attempt`; states: `run`, `new`, or an exit code.
fn runtime(states: &[&str]) -> PodRuntime {
    let mut runtime = PodRuntime::default();
    runtime.put_sandbox("wasm", sandbox("s", SandboxState::Ready));
    for text in states {
        let (name, state) = text.split_once('=').unwrap();
        let (name, attempt) = name.split_once('.').unwrap_or((name, "0"));
        let state = match state {
            "run" => ContainerState::Running { started_at: at(10) },
            "new" => ContainerState::Created,
            code => ContainerState::Exited(Exit {
                started_at: Some(at(10)),
                finished_at: at(20),
                code: code.parse().unwrap(),
                reason: String::new(),
                message: String::new(),
            }),
        };
        runtime.put_container("wasm", container(name, attempt.parse().unwrap(), state));
    }
    runtime
}

#[derive(Default)]
struct Case {
    probes: Results,
    back_off: BackOff,
    failures: BTreeMap<String, Failure>,
    lost: BTreeMap<String, Lost>,
    killed: BTreeSet<String>,
}

impl Case {
    fn actions(&self, pod: &Pod, runtime: &PodRuntime) -> Actions {
        pod_actions(&Observed {
            pod,
            runtime,
            probes: &self.probes,
            back_off: &self.back_off,
            failures: &self.failures,
            lost: &self.lost,
            killed: &self.killed,
            allocation: None,
            lives: true,
            now: at(21),
        })
    }
}

/// The actions as text: `+` start, `-` kill, `x` remove, `~` waits; `.` initialized,
/// `#` finished.
fn text(actions: &Actions) -> String {
    let mut parts = Vec::new();
    let start = |start: &Start| match start.attempt {
        0 => format!("+{}", start.name),
        attempt => format!("+{}.{attempt}", start.name),
    };
    parts.extend(actions.start.iter().map(start));
    parts.extend(actions.kill.iter().map(|kill| format!("-{}", kill.name)));
    parts.extend(actions.remove.iter().map(|id| format!("x{}", id.0)));
    parts.extend(actions.crash_loop.keys().map(|name| format!("~{name}")));
    parts.extend(actions.held.keys().map(|name| format!("~{name}")));
    if actions.initialized {
        parts.push(".".to_owned());
    }
    if actions.finished {
        parts.push("#".to_owned());
    }
    parts.join(" ")
}

#[test]
fn the_table() {
    let table: &[(&str, &[&str], &[&str], &str)] = &[
        // Nothing runs yet.
        ("Always", &["a", "b"], &[], "+a +b ."),
        ("Always", &["a", "b"], &["a=run"], "+b ."),
        ("Always", &["a", "b"], &["a=run", "b=run"], "."),
        // Restarts by policy.
        ("Always", &["a"], &["a=0"], "+a.1 ."),
        ("Always", &["a"], &["a=3"], "+a.1 ."),
        ("OnFailure", &["a"], &["a=3"], "+a.1 ."),
        ("OnFailure", &["a"], &["a=0"], ". #"),
        ("Never", &["a"], &["a=3"], ". #"),
        ("Never", &["a", "b"], &["a=3", "b=run"], "."),
        ("Never", &["a", "b"], &["a=3", "b=0"], ". #"),
        ("Always", &["a"], &["a.0=1", "a.1=run"], "."),
        ("Always", &["a"], &["a.0=1", "a.1=1", "a.2=run"], "xa-0 ."),
        ("Always", &["a"], &["a.0=1", "a.1=1"], "+a.2 ."),
        // Init containers come first, in order.
        ("Always", &["i!", "j!", "a"], &[], "+i"),
        ("Always", &["i!", "j!", "a"], &["i=run"], ""),
        ("Always", &["i!", "j!", "a"], &["i=0"], "+j"),
        ("Always", &["i!", "j!", "a"], &["i=0", "j=0"], "+a ."),
        ("Always", &["i!", "a"], &["i=0", "a=run"], "."),
        ("Always", &["i!", "a"], &["i=2"], "+i.1"),
        ("Never", &["i!", "a"], &["i=2"], "#"),
        ("Never", &["i!", "a"], &["i=0", "a=0"], ". #"),
        // Their records may be gone once the Pod proper was begun.
        ("Always", &["i!", "a"], &["a=1"], "+a.1 ."),
        // Sidecars run beside the others and end last.
        ("Always", &["s*", "i!", "a"], &[], "+s"),
        ("Always", &["s*", "i!", "a"], &["s=run"], "+i"),
        ("Always", &["s*", "i!", "a"], &["s=0", "i=run"], "+s.1"),
        ("Always", &["s*", "i!", "a"], &["s=run", "i=0"], "+a ."),
        (
            "Always",
            &["s*", "i!", "a"],
            &["s=1", "i=0", "a=run"],
            "+s.1 .",
        ),
        ("Never", &["s*", "a"], &["s=run", "a=0"], ". #"),
        ("Never", &["s*", "a"], &["s=137", "a=0"], ". #"),
        ("Never", &["s*", "i!", "a"], &["s=run", "i=1"], "#"),
        ("OnFailure", &["s*", "a"], &["s=run", "a=0"], ". #"),
        ("OnFailure", &["s*", "a"], &["s=run", "a=1"], "+a.1 ."),
        ("OnFailure", &["s*", "a"], &["s=1", "a=0"], ". #"),
        // Made and not started: the start failed, or the agent ended in between.
        ("Always", &["a"], &["a=new"], "+a xa-0 ."),
        ("Always", &["a"], &["a.0=1", "a.1=new"], "+a.1 xa-1 ."),
    ];
    for (policy, names, states, expected) in table {
        let actions = Case::default().actions(&pod(policy, names), &runtime(states));
        assert_eq!(text(&actions), *expected, "{policy} {names:?} {states:?}");
    }
}

#[test]
fn restarts_wait_for_their_back_off() {
    let pod = pod("Always", &["a"]);
    let mut case = Case::default();
    case.back_off.next("a", at(5), at(5));
    let actions = case.actions(&pod, &runtime(&["a=1"]));
    assert_eq!(text(&actions), "~a .");
    assert_eq!(actions.wake_at, Some(at(30)), "ten seconds after it ended");
    let running = case.actions(&pod, &runtime(&["a=run"]));
    assert_eq!((text(&running).as_str(), running.wake_at), (".", None));
}

#[test]
fn all_begin_anew_after_the_back_off_of_who_says_so() {
    let mut pod = pod("Never", &["a", "b"]);
    let rules = json!([{
        "action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]},
    }]);
    let a = &mut pod.spec.as_mut().unwrap().containers[0];
    a.restart_policy = Some("Never".to_owned());
    a.restart_policy_rules = serde_json::from_value(rules).unwrap();
    let runtime = runtime(&["a=42", "b=run"]);
    let mut case = Case::default();
    let anew = case.actions(&pod, &runtime);
    assert_eq!((text(&anew).as_str(), anew.anew), ("-b .", true));
    case.back_off.next("a", at(5), at(5));
    let waits = case.actions(&pod, &runtime);
    assert_eq!((text(&waits).as_str(), waits.anew), ("~a .", false));
    assert_eq!(waits.wake_at, Some(at(30)));
}

#[test]
fn failed_starts_wait() {
    let pod = pod("Always", &["a", "b"]);
    let mut case = Case::default();
    let failure = Failure {
        reason: "ErrImagePull",
        message: "none".to_owned(),
        retry_at: at(40),
        settle_at: None,
    };
    case.failures.insert("a".to_owned(), failure);
    let actions = case.actions(&pod, &runtime(&[]));
    assert_eq!(text(&actions), "+b ~a .");
    assert_eq!(actions.wake_at, Some(at(40)));
}

#[test]
fn lost_containers_count_as_restarts_and_none_runs_twice_that_runs_once() {
    type List = &'static [&'static str];
    type Row = (&'static str, List, List, List, &'static str);

    // What no runtime has any more, as `runtime` reads it, and what one has.
    let table: &[Row] = &[
        ("Always", &["a"], &["a.4=run"], &[], "+a.5 ."),
        ("OnFailure", &["a"], &["a=run"], &[], "+a.1 ."),
        ("OnFailure", &["a"], &["a=1"], &[], "+a.1 ."),
        ("OnFailure", &["a"], &["a=0"], &[], ". #"),
        ("OnFailure", &["a", "b"], &["a=0", "b=run"], &[], "+b.1 ."),
        ("OnFailure", &["a", "b"], &["a=0"], &["b=0"], ". #"),
        ("Never", &["a"], &["a=run"], &[], ". #"),
        ("Never", &["a"], &["a=0"], &[], ". #"),
        ("Never", &["a", "b"], &["a=run"], &["b=run"], "."),
        // What has not begun does.
        ("Never", &["a", "b"], &["a=0"], &[], "+b ."),
        // Init containers run again where something does for which they have run.
        ("Always", &["i!", "a"], &["i=0", "a=run"], &[], "+i.1"),
        (
            "Always",
            &["i!", "a"],
            &["i=0", "a=run"],
            &["i.1=0"],
            "+a.1 .",
        ),
        ("Always", &["i!", "j!", "a"], &["i=0", "j=run"], &[], "+i.1"),
        ("Always", &["i!", "j!", "a"], &["i=0"], &[], "+i.1"),
        (
            "Always",
            &["i!", "j!", "a"],
            &["i=0", "j=0"],
            &["i.1=0"],
            "+j.1",
        ),
        ("OnFailure", &["i!", "a"], &["i=0", "a=0"], &[], ". #"),
        ("Never", &["i!", "a"], &["i=0", "a=run"], &[], ". #"),
        ("Never", &["i!", "a"], &["i=run"], &[], "#"),
        ("Never", &["i!", "j!", "a"], &["i=0"], &[], "+j"),
        // No sidecar begins for what has ended.
        ("Never", &["s*", "a"], &["s=run", "a=run"], &[], ". #"),
        ("Always", &["s*", "a"], &["s=run", "a=run"], &[], "+s.1"),
    ];
    for (policy, names, lost, states, expected) in table {
        let (pod, mut case) = (pod(policy, names), Case::default());
        note(&mut case.lost, &pod, &runtime(lost));
        let found = match states.is_empty() {
            true => PodRuntime::default(),
            false => runtime(states),
        };
        let actions = case.actions(&pod, &found);
        assert_eq!(text(&actions), *expected, "{policy} {lost:?} {states:?}");
    }
    // Unless it was removed to begin anew with its Pod.
    let mut case = Case::default();
    let removed = Lost {
        attempt: 0,
        code: None,
    };
    case.lost.insert("a".to_owned(), removed);
    let actions = case.actions(&pod("Never", &["a"]), &PodRuntime::default());
    assert_eq!(text(&actions), "+a.1 .");
}

#[test]
fn probes_and_changes_kill() {
    let mut with_probe = pod("Always", &["a"]);
    let containers = &mut with_probe.spec.as_mut().unwrap().containers;
    containers[0].liveness_probe = Some(Default::default());
    let running = runtime(&["a=run"]);
    let id = ContainerId("a-0".to_owned());
    let case = Case::default();
    case.probes.set(&id, ProbeKind::Liveness, true);
    assert_eq!(text(&case.actions(&with_probe, &running)), ".");
    case.probes.set(&id, ProbeKind::Liveness, false);
    let actions = case.actions(&with_probe, &running);
    assert_eq!(actions.kill[0].cause, KillCause::Liveness);

    let mut changed = pod("Always", &["a"]);
    changed.spec.as_mut().unwrap().containers[0].image = Some("i:2".to_owned());
    let actions = Case::default().actions(&changed, &running);
    assert_eq!(actions.kill[0].cause, KillCause::Changed);
}

#[test]
fn an_init_container_that_runs_is_let_run_whatever_its_image_is_now() {
    for (name, expected) in [("i!", ""), ("i*", "-i")] {
        let mut pod = pod("Always", &[name, "a"]);
        let inits = pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap();
        inits[0].image = Some("i:2".to_owned());
        let actions = Case::default().actions(&pod, &runtime(&["i=run"]));
        assert_eq!(text(&actions), expected, "{name}");
    }
}

#[test]
fn what_was_killed_to_be_started_again_is_whatever_its_code() {
    // The policy; whether the container is started again after a failed probe, and after a change.
    for (policy, probe, change) in [
        ("Always", true, true),
        ("OnFailure", true, true),
        ("Never", false, true),
    ] {
        let pod = pod(policy, &["a"]);
        let case = Case::default();
        case.probes
            .set(&ContainerId("a-0".to_owned()), ProbeKind::Liveness, false);
        let killed = case.actions(&pod, &runtime(&["a=run"]));
        assert_eq!(killed.kill[0].restarts, probe, "{policy}");
        let mut changed = pod.clone();
        changed.spec.as_mut().unwrap().containers[0].image = Some("i:2".to_owned());
        let killed = Case::default().actions(&changed, &runtime(&["a=run"]));
        assert_eq!(killed.kill[0].restarts, change, "{policy}");
    }
    // It has heard the signal and ended well, as jobs do.
    let pod = pod("OnFailure", &["a"]);
    let ended = runtime(&["a=0"]);
    let mut case = Case::default();
    assert_eq!(text(&case.actions(&pod, &ended)), ". #");
    case.killed.insert("a-0".to_owned());
    assert_eq!(text(&case.actions(&pod, &ended)), "+a.1 .");
    case.back_off.next("a", at(5), at(5));
    assert_eq!(text(&case.actions(&pod, &ended)), "~a .");
}

#[test]
fn a_sidecar_holds_up_until_its_startup_probe_succeeds() {
    let mut pod = pod("Always", &["s*", "a"]);
    let inits = pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap();
    inits[0].startup_probe = Some(Default::default());
    let running = runtime(&["s=run"]);
    let case = Case::default();
    assert_eq!(text(&case.actions(&pod, &running)), "");
    let id = ContainerId("s-0".to_owned());
    case.probes.set(&id, ProbeKind::Startup, true);
    assert_eq!(text(&case.actions(&pod, &running)), "+a .");
}

#[test]
fn a_pod_begins_with_its_init_containers_in_a_new_sandbox() {
    // What has died with the first sandbox, what is in the second, if there is one.
    let table: &[(&str, &[&str], &[&str], &str)] = &[
        ("Always", &["i=0", "a=137"], &[], "+i.1"),
        ("Always", &["i=0", "a=137"], &["i.1=run"], ""),
        ("Always", &["i=0", "a=137"], &["i.1=0"], "+a.1 ."),
        ("Always", &["i=0", "a=137"], &["i.1=0", "a.1=run"], "."),
        ("Always", &["i=137"], &[], "+i.1"),
        ("OnFailure", &["i=0", "a=137"], &[], "+i.1"),
        // What is over stays so.
        ("OnFailure", &["i=0", "a=0"], &[], ". #"),
        ("Never", &["i=0", "a=137"], &[], ". #"),
    ];
    for (policy, dead, new, expected) in table {
        let mut found = runtime(dead);
        found.sandbox_died(&SandboxId("s".to_owned()));
        if !new.is_empty() {
            found.put_sandbox("wasm", sandbox("s2", SandboxState::Ready));
        }
        for of in runtime(new).containers {
            let mut container = of.container;
            container.sandbox = SandboxId("s2".to_owned());
            found.put_container("wasm", container);
        }
        let actions = Case::default().actions(&pod(policy, &["i!", "a"]), &found);
        assert_eq!(text(&actions), *expected, "{policy} {dead:?} {new:?}");
    }
}

#[test]
fn a_dead_sandbox_goes_when_nothing_in_it_is_needed() {
    let pod = pod("Always", &["a"]);
    let mut runtime = PodRuntime::default();
    runtime.put_sandbox("wasm", sandbox("s", SandboxState::NotReady));
    let exit = runtime_exit(1);
    runtime.put_container("wasm", container("a", 0, exit.clone()));
    let case = Case::default();
    assert!(case.actions(&pod, &runtime).remove_sandboxes.is_empty());
    runtime.put_sandbox("wasm", sandbox("s2", SandboxState::Ready));
    for attempt in [1, 2] {
        let mut next = container("a", attempt, exit.clone());
        next.sandbox = SandboxId("s2".to_owned());
        runtime.put_container("wasm", next);
    }
    let actions = case.actions(&pod, &runtime);
    assert_eq!(actions.remove_sandboxes, [SandboxId("s".to_owned())]);
}

fn runtime_exit(code: i32) -> ContainerState {
    let runtime = runtime(&[&format!("x={code}")]);
    runtime.containers[0].container.state.clone()
}
