//! test/e2e/common/node/lifecycle_hook.go and test/e2e/node/pre_stop.go: hooks of containers, which
//! call a server in another Pod.

use serde_json::{Value, json};

use super::shared::{IDLE, Place, place, pod};

/// Notes who calls it by what path.
const SERVER: &str = r#"
mkdir -p /www/cgi-bin
cat > /www/cgi-bin/called <<'END'
#!/bin/sh
echo "$REQUEST_METHOD $QUERY_STRING" >> /calls
printf 'Content-Type: text/plain\r\n\r\nnoted\n'
END
chmod 755 /www/cgi-bin/called
: > /calls
exec httpd -f -p 8080 -h /www
"#;

/// Starts the server: its address.
fn server(place: &Place) -> String {
    let mut server = pod(SERVER);
    server["containers"][0]["readinessProbe"] =
        json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
    place.make("Pod", "server", &server);
    place.wait_ready(&["server"]);
    place.address("server")
}

fn by_command(address: &str, query: &str) -> Value {
    let url = format!("http://{address}:8080/cgi-bin/called?{query}");
    json!({"exec": {"command": ["wget", "-q", "-O", "-", url]}})
}

fn by_http(address: &str, query: &str) -> Value {
    let path = format!("/cgi-bin/called?{query}");
    json!({"httpGet": {"host": address, "port": 8080, "path": path}})
}

/// Makes a Pod with a hook, and waits until it runs.
fn hooked(place: &Place, when: &str, hook: Value) {
    let mut pod = pod(IDLE);
    pod["terminationGracePeriodSeconds"] = json!(15);
    pod["containers"][0]["lifecycle"] = json!({when: hook});
    place.make("Pod", "hooked", &pod);
    place.wait_value(&["pod", "hooked"], ".status.phase", "Running");
}

#[track_caller]
fn calls(place: &Place, wanted: &str) {
    assert_eq!(place.shell("server", "cat /calls"), wanted);
}

const CALLED: &str = "GET from=hook\n";

/// A container that runs has run its hook.
fn runs_after_start(hook: fn(&str, &str) -> Value) {
    let Some(place) = place() else { return };
    let address = server(&place);
    calls(&place, "");
    hooked(&place, "postStart", hook(&address, "from=hook"));
    calls(&place, CALLED);
}

/// A container runs its hook when it is ended, and not before.
fn runs_before_stop(hook: fn(&str, &str) -> Value) {
    let Some(place) = place() else { return };
    let address = server(&place);
    hooked(&place, "preStop", hook(&address, "from=hook"));
    calls(&place, "");
    place.ok(&["delete", "pod", "hooked", "--timeout=60s"]);
    calls(&place, CALLED);
}

/// Must: a command that is the hook is run after the container is started.
#[test]
fn container_lifecycle_hook_when_create_a_pod_with_lifecycle_hook_should_execute_poststart_exec_hook_properly()
 {
    runs_after_start(by_command);
}

/// Must: a request of HTTP that is the hook is made after the container is started.
#[test]
fn container_lifecycle_hook_when_create_a_pod_with_lifecycle_hook_should_execute_poststart_http_hook_properly()
 {
    runs_after_start(by_http);
}

/// Must: a command that is the hook is run before the container ends.
#[test]
fn container_lifecycle_hook_when_create_a_pod_with_lifecycle_hook_should_execute_prestop_exec_hook_properly()
 {
    runs_before_stop(by_command);
}

/// Must: a request of HTTP that is the hook is made before the container ends.
#[test]
fn container_lifecycle_hook_when_create_a_pod_with_lifecycle_hook_should_execute_prestop_http_hook_properly()
 {
    runs_before_stop(by_http);
}

/// Must: the hook of a Pod that is deleted is called before the Pod is gone, and while its container
/// still runs.
#[test]
fn prestop_should_call_prestop_when_killing_a_pod() {
    let Some(place) = place() else { return };
    let address = server(&place);
    let call = |what: &str| {
        format!("wget -q -O - --post-data= http://{address}:8080/cgi-bin/called?{what}")
    };
    // The container says when it ends, which is after its hook.
    let script = format!(
        "trap '{}; exit' TERM; while true; do sleep 0.1; done",
        call("container")
    );
    let mut tester = pod(&script);
    tester["terminationGracePeriodSeconds"] = json!(15);
    let hook = json!({"exec": {"command": ["sh", "-c", call("hook")]}});
    tester["containers"][0]["lifecycle"] = json!({"preStop": hook});
    place.make("Pod", "tester", &tester);
    place.wait_value(&["pod", "tester"], ".status.phase", "Running");
    calls(&place, "");
    place.ok(&["delete", "pod", "tester", "--timeout=60s"]);
    calls(&place, "POST hook\nPOST container\n");
}
