//! test/e2e/network/proxy.go: HTTP to Pods and Services through the API server, of every method.
//! Requests go by way of kubectl's proxy, which spares them TLS.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::shared::{Place, place, pod, with_programs_of_the_machine};
use crate::cluster::{Background, DEADLINE, eventually, websocket};

/// Answers on each port, `PORT=TEXT`, with its text; or with that and the method that was used as
/// JSON.
const PORTER: &str = r#"
    my %says = map { split /=/, $_, 2 } @ARGV;
    $SIG{CHLD} = "IGNORE";
    for my $port (keys %says) {
        next if fork;
        my $server = IO::Socket::INET->new(LocalPort => $port, Listen => 64, ReuseAddr => 1)
            or die "$port: $!";
        while (my $client = $server->accept) {
            next if fork;
            my ($method, $length) = ("", 0);
            while (my $line = <$client>) {
                $method ||= (split / /, $line)[0];
                $length = $1 if $line =~ /^content-length: *(\d+)/i;
                last if $line =~ /^\r?\n$/;
            }
            read $client, my $sent, $length;
            my $body = $says{$port};
            my $type = $body =~ /^</ ? "text/html" : "text/plain";
            $body = qq({"Method":"$method","Body":"$body"}) if $ENV{AS_JSON};
            my $size = length $body;
            print $client "HTTP/1.1 200 OK\r\nContent-Type: $type\r\nContent-Length: $size\r\n";
            print $client "Connection: close\r\n\r\n";
            print $client $body unless $method eq "HEAD";
            exit;
        }
    }
    sleep while 1;
"#;

/// Serves files over TLS, on each port those of a folder of its name, with a certificate of nobody's.
const OVER_TLS: &str = r#"
    printf '[req]\ndistinguished_name=d\n[d]\n' > /openssl
    export OPENSSL_CONF=/openssl
    openssl=/usr/bin/openssl
    $openssl req -x509 -newkey rsa:2048 -nodes -keyout /key -out /certificate -subj /CN=x -days 1
    serve() {
        mkdir "/$1"
        printf '%s' "$3" > "/$1/$2"
        (cd "/$1" && exec $openssl s_server -WWW -accept "$1" -cert /certificate -key /key </dev/null) &
    }
    serve 443 page.html '<a href="/tlsrewriteme">test</a>'
    serve 460 text 'tls baz'
    serve 462 text 'tls qux'
"#;

/// A Pod that answers so, after a script of its shell.
fn porter(script: &str, says: &[&str]) -> Value {
    let mut spec = with_programs_of_the_machine(pod(""));
    let script = format!(r#"{script} exec /usr/bin/perl -MIO::Socket::INET -e "$PORTER" -- "$@""#);
    let command = ["sh", "-c", &script, "porter"];
    let container = &mut spec["containers"][0];
    container["command"] = json!([&command[..], says].concat());
    container["env"] = json!([{"name": "PORTER", "value": PORTER}]);
    spec
}

/// An answer: its status, its head, and its body.
type Answer = (u16, String, String);

/// One exchange. In HTTP/1.0 a body is not chunked, and ends the connection.
fn exchange(address: &str, method: &str, path: &str) -> Result<Answer, String> {
    let whole = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = whole().map_err(|error| error.to_string())?;
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let (Some(status), Some((head, body))) = (status, text.split_once("\r\n\r\n")) else {
        return Err(format!("no HTTP: {text:?}"));
    };
    Ok((status, head.to_lowercase(), body.to_owned()))
}

fn proxy(place: &Place) -> (Background, String) {
    let name = format!("{}-porter", place.namespace);
    websocket::proxy(place, &place.cluster.folder().join(name))
}

/// A Pod and a Service by the name `porter`, and the paths of the proxies to them.
fn porter_and_service(place: &Place) -> [String; 2] {
    let mut spec = porter("", &["80=foo"]);
    let env = spec["containers"][0]["env"].as_array_mut().unwrap();
    env.push(json!({"name": "AS_JSON", "value": "1"}));
    place.make("Pod", "porter", &spec);
    place.wait_ready(&["porter"]);
    let service =
        json!({"selector": {"name": "porter"}, "ports": [{"port": 80, "targetPort": 80}]});
    place.make("Service", "porter", &service);
    let namespace = &place.namespace;
    ["pods", "services"].map(|kind| format!("/api/v1/namespaces/{namespace}/{kind}/porter/proxy"))
}

/// Waits until a request is answered by `foo` and by its method.
#[track_caller]
fn is_answered(address: &str, method: &str, path: &str) {
    let want = (method != "HEAD").then(|| json!({"Method": method, "Body": "foo"}));
    eventually(&format!("{method} {path}"), || {
        let (status, _, body) = exchange(address, method, path)?;
        let heard = serde_json::from_str::<Value>(&body).ok();
        if status == 200 && heard == want && (want.is_some() || body.is_empty()) {
            Ok(())
        } else {
            Err(format!("{status} {body}"))
        }
    });
}

/// Must: a Pod and a Service are reached by their proxies with each method of HTTP.
/// Must: each is answered; what is read without a path is moved to one.
#[test]
fn proxy_version_v1_a_set_of_valid_responses_are_returned_for_both_pod_and_service_proxy() {
    let Some(place) = place() else { return };
    let roots = porter_and_service(&place);
    let (_running, address) = proxy(&place);
    for root in roots {
        for method in ["DELETE", "OPTIONS", "PATCH", "POST", "PUT"] {
            is_answered(&address, method, &format!("{root}?method={method}"));
        }
        for method in ["GET", "HEAD"] {
            let path = format!("{root}?method={method}");
            let (status, head, _) = exchange(&address, method, &path).unwrap();
            assert_eq!(status, 301, "{head}");
            let to = format!("location: {root}/?method={method}").to_lowercase();
            assert!(head.contains(&to), "{head}");
        }
    }
}

/// Must: a Pod and a Service are reached at paths below their proxies with each method of HTTP.
/// Must: each is answered.
#[test]
fn proxy_version_v1_a_set_of_valid_responses_are_returned_for_both_pod_and_service_proxywithpath() {
    let Some(place) = place() else { return };
    let roots = porter_and_service(&place);
    let (_running, address) = proxy(&place);
    for root in roots {
        for method in ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] {
            is_answered(&address, method, &format!("{root}/some/path/with/{method}"));
        }
    }
}

/// Must: a Service is reached by the names and numbers of its ports, over HTTP and over TLS.
/// Must: a Pod is reached by the numbers of its ports, or else by its first.
/// Must: links of pages lead through the proxy again.
#[test]
fn proxy_version_v1_should_proxy_through_a_service_and_a_pod() {
    let Some(place) = place() else { return };
    let page = r#"<a href="/rewriteme">test</a>"#;
    let pages = [format!("80={page}"), format!("1080={page}")];
    let says = [&*pages[0], &*pages[1], "160=foo", "162=bar"];
    let mut spec = porter(OVER_TLS, &says);
    let container = &mut spec["containers"][0];
    container["ports"] = json!([
        {"containerPort": 80},
        {"name": "dest1", "containerPort": 160}, {"name": "dest2", "containerPort": 162},
        {"name": "tlsdest1", "containerPort": 460}, {"name": "tlsdest2", "containerPort": 462},
    ]);
    container["readinessProbe"] = json!({"httpGet": {"port": 80}, "periodSeconds": 1});
    place.make("Pod", "porter", &spec);
    let ports = json!([
        {"name": "portname1", "port": 80, "targetPort": "dest1"},
        {"name": "portname2", "port": 81, "targetPort": 162},
        {"name": "tlsportname1", "port": 443, "targetPort": "tlsdest1"},
        {"name": "tlsportname2", "port": 444, "targetPort": 462},
    ]);
    place.make(
        "Service",
        "porter",
        &json!({"selector": {"name": "porter"}, "ports": ports}),
    );
    place.wait_ready(&["porter"]);
    let (_running, address) = proxy(&place);
    let plain = |text: &'static str| (text, false);
    for (kind, name, below, (want, is_page)) in [
        ("services", "porter:portname1", "/", plain("foo")),
        ("services", "http:porter:portname1", "/", plain("foo")),
        ("services", "porter:80", "/", plain("foo")),
        ("services", "porter:portname2", "/", plain("bar")),
        ("services", "http:porter:portname2", "/", plain("bar")),
        (
            "services",
            "https:porter:tlsportname1",
            "/text",
            plain("tls baz"),
        ),
        ("services", "https:porter:443", "/text", plain("tls baz")),
        (
            "services",
            "https:porter:tlsportname2",
            "/text",
            plain("tls qux"),
        ),
        ("pods", "porter", "/", ("rewriteme", true)),
        ("pods", "porter:1080", "/", ("rewriteme", true)),
        ("pods", "http:porter:1080", "/", ("rewriteme", true)),
        ("pods", "porter:160", "/", plain("foo")),
        ("pods", "http:porter:160", "/", plain("foo")),
        ("pods", "porter:dest1", "/", plain("foo")),
        ("pods", "porter:162", "/", plain("bar")),
        (
            "pods",
            "https:porter:443",
            "/page.html",
            ("tlsrewriteme", true),
        ),
        ("pods", "https:porter:460", "/text", plain("tls baz")),
        ("pods", "https:porter:462", "/text", plain("tls qux")),
    ] {
        let root = format!("/api/v1/namespaces/{}/{kind}/{name}/proxy", place.namespace);
        let want = match is_page {
            true => format!(r#"<a href="{root}/{want}">test</a>"#),
            false => want.to_owned(),
        };
        for _ in 0..3 {
            eventually(name, || {
                match exchange(&address, "GET", &format!("{root}{below}"))? {
                    (200, _, body) if body == want => Ok(()),
                    (status, _, body) => Err(format!("{status} {body}")),
                }
            });
        }
    }
}
