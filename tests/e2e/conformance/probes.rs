//! test/e2e/common/node/container_probe.go: what becomes of containers that are probed.

use serde_json::{Value, json};

use super::shared::{IDLE, Place, place, pod, with_programs_of_the_machine};
use crate::cluster::eventually;

const RESTARTS: &str = ".status.containerStatuses[0].restartCount";

/// Serves `/cgi-bin/healthz` on port 8080, which notes each call, and is there while a file is.
const SERVE: &str = r#"
mkdir -p /www/cgi-bin
cat > /www/cgi-bin/healthz <<'END'
#!/bin/sh
echo asked >> /asked
if test -e /healthy; then code=200; else code=500; fi
printf "Status: $code\r\nContent-Type: text/plain\r\n\r\n$code\n"
END
chmod 755 /www/cgi-bin/healthz
: > /healthy
httpd -p 8080 -h /www
"#;

/// Answers a call of gRPC's health service with the status that its argument says, 1 being that it
/// serves.
const GRPC: &str = r#"
    my $serving = shift;
    sub frame {
        my ($kind, $flags, $stream, $payload) = @_;
        substr(pack("N", length $payload), 1) . pack("CCN", $kind, $flags, $stream) . $payload;
    }
    my $listener = IO::Socket::INET->new(LocalPort => 5000, Listen => 16, ReuseAddr => 1) or die $!;
    while (my $client = $listener->accept) {
        read $client, my $preface, 24;
        $client->print(frame(4, 0, 0, ""));
        while ((read($client, my $head, 9) // 0) == 9) {
            my ($size, $kind, $flags, $stream) = unpack "NCCN", "\0$head";
            read $client, my $payload, $size if $size;
            $client->print(frame(4, 1, 0, "")) if $kind == 4 && !($flags & 1);
            next unless $kind < 2 && $flags & 1;
            open my $asked, ">>", "/asked" or die $!;
            print $asked "asked\n";
            close $asked;
            my $type = "\x0f\x10\x10application/grpc";
            $client->print(
                frame(1, 4, $stream, "\x88$type"),
                frame(0, 0, $stream, "\0\0\0\0\2\x08" . chr $serving),
                frame(1, 5, $stream, "\0\x0bgrpc-status\x010"),
            );
        }
    }
"#;

/// A Pod whose container runs a script and is probed.
fn probed(script: &str, kind: &str, mut probe: Value) -> Value {
    let mut pod = pod(script);
    if probe.get("periodSeconds").is_none() {
        probe["periodSeconds"] = json!(1);
    }
    pod["containers"][0][kind] = probe;
    pod
}

/// A Pod of a server of gRPC, which says that it serves, or not, to a liveness probe.
fn grpc(serving: bool) -> Value {
    let probe = json!({"grpc": {"port": 5000}, "initialDelaySeconds": 1, "failureThreshold": 2});
    let status = if serving { "1" } else { "2" };
    let mut pod = with_programs_of_the_machine(probed("", "livenessProbe", probe));
    pod["containers"][0]["command"] =
        json!(["/usr/bin/perl", "-MIO::Socket::INET", "-e", GRPC, status]);
    pod
}

/// A container's probe fails, and it is started again.
fn is_restarted(place: &Place, pod: &Value) {
    place.make("Pod", "probed", pod);
    place.wait_value(&["pod", "probed"], RESTARTS, "1");
    let event = "Container main failed liveness probe, will be restarted";
    eventually("the event", || {
        let events = place.ok(&["events", "--for", "pod/probed"]);
        let told = events.contains(event);
        told.then_some(()).ok_or(events)
    });
}

/// A container is probed as often as it takes to be sure, and goes on. It notes when it is probed.
fn is_not_restarted(place: &Place, pod: &Value) {
    place.make("Pod", "probed", pod);
    place.wait_value(&["pod", "probed"], ".status.phase", "Running");
    is_asked(place, 5);
    assert_eq!(place.value(&["pod", "probed"], RESTARTS), "0");
}

/// Waits until a container has been probed so often.
fn is_asked(place: &Place, often: u32) {
    place.shell_until("probed", "wc -l < /asked", |count| {
        count
            .trim()
            .parse::<u32>()
            .is_ok_and(|count| count >= often)
    });
}

/// A moment that an object names.
fn moment(place: &Place, path: &str) -> jiff::Timestamp {
    place.value(&["pod", "probed"], path).parse().unwrap()
}

const STARTED: &str = ".status.containerStatuses[0].state.running.startedAt";
const READY: &str = r#".status.conditions[?(@.type=="Ready")]"#;

/// Must: a Pod is not ready before its probe has begun, and its container is never started again.
#[test]
fn probing_container_with_readiness_probe_should_not_be_ready_before_initial_delay_and_never_restart()
 {
    let Some(place) = place() else { return };
    let probe = json!({"exec": {"command": ["true"]}, "initialDelaySeconds": 3});
    place.make("Pod", "probed", &probed(IDLE, "readinessProbe", probe));
    place.wait_ready(&["probed"]);
    let ready = moment(&place, &format!("{READY}.lastTransitionTime"));
    let started = moment(&place, STARTED);
    // Both are of whole seconds.
    let waited = ready.duration_since(started);
    assert!(waited.as_secs() >= 2, "{waited:?}");
    assert_eq!(place.value(&["pod", "probed"], RESTARTS), "0");
}

/// Must: a Pod whose readiness probe fails is never ready.
/// Must: its container is never started again.
#[test]
fn probing_container_with_readiness_probe_that_fails_should_never_be_ready_and_never_restart() {
    let Some(place) = place() else { return };
    let output = place
        .cluster
        .folder()
        .join(format!("{}-watch", place.namespace));
    let ready = format!(r#"jsonpath={{{READY}.status}}{{"\n"}}"#);
    let watching = ["get", "pods", "--watch", "-o", &ready];
    let watch = place.spawn(&watching, &output);
    let probe = json!({"exec": {"command": ["sh", "-c", "echo asked >> /asked; false"]}});
    place.make("Pod", "probed", &probed(IDLE, "readinessProbe", probe));
    place.wait_value(&["pod", "probed"], ".status.phase", "Running");
    is_asked(&place, 4);
    let seen = eventually("what was watched", || {
        let printed = watch.printed();
        let said = printed.contains("False");
        said.then(|| printed.clone()).ok_or(printed)
    });
    assert!(!seen.contains("True"), "{seen}");
    let now = place.value(&["pod", "probed"], &format!("{READY}.status"));
    assert_eq!(now, "False");
    assert_eq!(place.value(&["pod", "probed"], RESTARTS), "0");
}

/// A probe of what a container runs, which notes that.
fn health_file() -> Value {
    json!({"exec": {"command": ["sh", "-c", "echo asked >> /asked; cat /healthy"]}, "failureThreshold": 1})
}

/// It may be asked before it listens.
fn healthz() -> Value {
    json!({
        "httpGet": {"path": "/cgi-bin/healthz", "port": 8080},
        "initialDelaySeconds": 1, "failureThreshold": 3,
    })
}

/// Must: a container whose probe reads a file that goes is started again.
#[test]
fn probing_container_should_be_restarted_with_a_exec_cat_tmp_health_liveness_probe() {
    let Some(place) = place() else { return };
    let script = format!(": > /healthy; sleep 2; rm /healthy; {IDLE}");
    is_restarted(&place, &probed(&script, "livenessProbe", health_file()));
}

/// Must: a container whose probe reads a file that stays is not started again.
#[test]
fn probing_container_should_not_be_restarted_with_a_exec_cat_tmp_health_liveness_probe() {
    let Some(place) = place() else { return };
    let script = format!(": > /healthy; {IDLE}");
    is_not_restarted(&place, &probed(&script, "livenessProbe", health_file()));
}

/// Must: an answer of HTTP that is an error is a failure of the probe.
/// Must: the container is ended and started again.
#[test]
fn probing_container_should_be_restarted_with_a_healthz_http_liveness_probe() {
    let Some(place) = place() else { return };
    let script = format!("{SERVE}\nsleep 2; rm /healthy; {IDLE}");
    is_restarted(&place, &probed(&script, "livenessProbe", healthz()));
    let events = place.ok(&["events", "--for", "pod/probed"]);
    let failure = "Liveness probe failed: HTTP probe failed with statuscode: 500";
    assert!(events.contains(failure), "{events}");
}

/// Must: a container that answers well is not started again.
#[test]
fn probing_container_should_not_be_restarted_with_a_healthz_http_liveness_probe() {
    let Some(place) = place() else { return };
    let script = format!("{SERVE}\n{IDLE}");
    is_not_restarted(&place, &probed(&script, "livenessProbe", healthz()));
}

/// Must: a container that takes connections is not started again.
#[test]
fn probing_container_should_not_be_restarted_with_a_tcp_8080_liveness_probe() {
    let Some(place) = place() else { return };
    let script = "exec nc -ll -p 8080 -e sh -c 'echo asked >> /asked'";
    let probe = json!({"tcpSocket": {"port": 8080}, "initialDelaySeconds": 1});
    is_not_restarted(&place, &probed(script, "livenessProbe", probe));
}

/// Must: a container that says by gRPC that it serves is not started again.
#[test]
fn probing_container_should_not_be_restarted_with_a_grpc_liveness_probe() {
    let Some(place) = place() else { return };
    is_not_restarted(&place, &grpc(true));
}

/// Must: a container that says by gRPC that it does not serve is started again.
#[test]
fn probing_container_should_be_restarted_with_a_grpc_liveness_probe() {
    let Some(place) = place() else { return };
    is_restarted(&place, &grpc(false));
    let events = place.ok(&["events", "--for", "pod/probed"]);
    let failure = "service unhealthy (responded with \"NOT_SERVING\")";
    assert!(events.contains(failure), "{events}");
}

/// Must: a container whose probe fails is ended and started again, and has been once.
/// Must: the probe fails again after that.
/// Must: the count grows by one whenever it does.
#[test]
fn probing_container_should_have_monotonically_increasing_restart_count() {
    let Some(place) = place() else { return };
    let asked = IDLE.replace("trap exit", "trap 'exit 42'");
    assert_ne!(asked, IDLE);
    let script = format!("{SERVE}\nsleep 1; rm /healthy; {asked}");
    let pod = probed(&script, "livenessProbe", healthz());
    place.make("Pod", "probed", &pod);
    // Waits between them grow: the third takes half a minute. Upstream waits for two more.
    for count in ["1", "2", "3"] {
        place.wait_value(&["pod", "probed"], RESTARTS, count);
        // It has not ended by itself, and had the time to end that even a Pod without any is given.
        let last = ".status.containerStatuses[0].lastState.terminated.exitCode";
        assert_eq!(place.value(&["pod", "probed"], last), "42");
    }
    let events = place.ok(&["events", "--for", "pod/probed"]);
    let failure = "Liveness probe failed: HTTP probe failed with statuscode: 500";
    assert!(events.contains(failure), "{events}");
}
