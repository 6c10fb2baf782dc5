//! test/e2e/common/node/expansion.go: variables of the environment where a container's command and
//! the parts of its volumes are named.

use serde_json::{Value, json};

use super::outputs::{NAME, container, output, wait_for_phase};
use super::shared::{IDLE, Place, place};

/// Must: a variable in a container's command is replaced by its value, whatever the shell has of
/// that name.
#[test]
fn variable_expansion_should_allow_substituting_values_in_a_container_s_command() {
    let Some(place) = place() else {
        return;
    };
    let mut container = container("TEST_VAR=wrong echo \"$(TEST_VAR)\"");
    container["env"] = json!([{"name": "TEST_VAR", "value": "test-value"}]);
    assert_eq!(output(&place, &container, json!({})), "test-value\n");
}

/// A container with a volume, a part of which is named by an expression.
fn with_part(script: &str, expression: &str, env: Value) -> Value {
    let mut container = container(script);
    container["env"] = env;
    container["volumeMounts"] = json!([
        {"name": "workdir1", "mountPath": "/part", "subPathExpr": expression},
        {"name": "workdir1", "mountPath": "/whole"},
    ]);
    container
}

fn volumes() -> Value {
    json!([{"name": "workdir1", "emptyDir": {}}])
}

/// Must: a variable in the name of a part of a volume is replaced, and the part is made.
#[test]
fn variable_expansion_should_allow_substituting_values_in_a_volume_subpath() {
    let Some(place) = place() else {
        return;
    };
    let env =
        json!([{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    let script = format!("test -d /whole/{NAME}; echo $?");
    let container = with_part(&script, "$(POD_NAME)", env);
    let said = output(&place, &container, json!({"volumes": volumes()}));
    assert_eq!(said, "0\n");
}

/// Makes a Pod with a part of a volume, which goes on once it has begun.
#[track_caller]
fn begun(place: &Place, container: &Value, annotations: &Value) {
    let pod = json!({
        "kind": "Pod", "metadata": {"name": NAME, "annotations": annotations},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [container], "volumes": volumes()},
    });
    super::create(place, &pod);
}

/// The container is not made, and why is told.
#[track_caller]
fn is_refused(place: &Place, cause: &str) {
    let waiting = ".status.containerStatuses[0].state.waiting";
    place.wait_value(
        &["pod", NAME],
        &format!("{waiting}.reason"),
        "CreateContainerConfigError",
    );
    let why = place.value(&["pod", NAME], &format!("{waiting}.message"));
    assert!(why.contains(cause), "{why}");
}

#[track_caller]
fn refused(value: &str) {
    let Some(place) = place() else {
        return;
    };
    let env = json!([{"name": "POD_NAME", "value": value}]);
    begun(&place, &with_part(IDLE, "$(POD_NAME)", env), &json!({}));
    is_refused(&place, "subPath");
    place.ok(&["delete", "pod", NAME, "--timeout=60s"]);
}

/// Must: no container is made with a part of a volume whose name leads out of it.
#[test]
fn variable_expansion_should_fail_substituting_values_in_a_volume_subpath_with_backticks() {
    refused("..");
}

/// Must: no container is made with a part of a volume whose name is an absolute path.
#[test]
fn variable_expansion_should_fail_substituting_values_in_a_volume_subpath_with_absolute_path() {
    refused("/tmp");
}

/// A container whose part of a volume is named by an annotation of its Pod.
fn by_annotation() -> Value {
    let annotation = json!({"fieldRef": {"fieldPath": "metadata.annotations['mysubpath']"}});
    let env = json!([
        {"name": "POD_NAME", "value": "foo"}, {"name": "ANNOTATION", "valueFrom": annotation},
    ]);
    with_part(IDLE, "$(ANNOTATION)/$(POD_NAME)", env)
}

/// Must: a container whose part of a volume has no valid name is not made.
/// Must: it is made once an annotation of its Pod makes the name valid.
/// Must: its Pod can be deleted then.
#[test]
fn variable_expansion_should_verify_that_a_failing_subpath_expansion_can_be_modified_during_the_lifecycle_of_a_container()
 {
    let Some(place) = place() else {
        return;
    };
    begun(&place, &by_annotation(), &json!({"notmysubpath": "mypath"}));
    is_refused(&place, "missing value for ANNOTATION");
    place.ok(&["annotate", "pod", NAME, "mysubpath=mypath"]);
    wait_for_phase(&place, "Running");
    place.ok(&["delete", "pod", NAME, "--timeout=60s"]);
}

/// Must: a container runs with a part of a volume that an expression names.
/// Must: what is written in the volume is seen in the part.
/// Must: the Pod runs on when the expression has another value, and can be deleted then.
#[test]
fn variable_expansion_should_succeed_in_writing_subpaths_in_container() {
    let Some(place) = place() else {
        return;
    };
    begun(&place, &by_annotation(), &json!({"mysubpath": "mypath"}));
    wait_for_phase(&place, "Running");
    place.shell(NAME, "touch /whole/mypath/foo/test.log");
    place.shell(NAME, "test -f /part/test.log");
    place.ok(&[
        "annotate",
        "--overwrite",
        "pod",
        NAME,
        "mysubpath=mynewpath",
    ]);
    place.shell(NAME, "test -f /part/test.log");
    let phase = place.value(&["pod", NAME], ".status.phase");
    assert_eq!(phase, "Running");
    place.ok(&["delete", "pod", NAME, "--timeout=60s"]);
}
