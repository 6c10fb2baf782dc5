//! What operations take in their queries and paths.

use serde_json::{Value, json};

/// A parameter of a query: its name, its type, and what it says.
pub(super) type Parameter = (&'static str, &'static str, &'static str);

pub(super) const PRETTY: Parameter = ("pretty", "string", "Whether the answer is indented.");
pub(super) const LIST: &[Parameter] = &[
    (
        "allowWatchBookmarks",
        "boolean",
        "Whether a watch gets bookmarks, which say how far it has come.",
    ),
    (
        "continue",
        "string",
        "Where to go on: what the list before this one has in its metadata.",
    ),
    (
        "fieldSelector",
        "string",
        "Which objects, by their fields; all unless it is said.",
    ),
    (
        "labelSelector",
        "string",
        "Which objects, by their labels; all unless it is said.",
    ),
    (
        "limit",
        "integer",
        "How many objects an answer has at most; the others come with continue.",
    ),
    (
        "resourceVersion",
        "string",
        "How new what is answered must be, or from where a watch begins.",
    ),
    (
        "resourceVersionMatch",
        "string",
        "What resourceVersion is to a list: Exact or NotOlderThan.",
    ),
    (
        "sendInitialEvents",
        "boolean",
        "Whether a watch begins with what there is, and a bookmark after it.",
    ),
    (
        "timeoutSeconds",
        "integer",
        "How long a list or a watch may take.",
    ),
    (
        "watch",
        "boolean",
        "Whether changes are wanted, as they come, in the place of a list.",
    ),
];
/// Those of them that only watches have.
pub(super) const OF_WATCHES: [&str; 2] = ["allowWatchBookmarks", "watch"];
const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "All, where nothing is to be kept of what the request does.",
);
pub(super) const WRITE: &[Parameter] = &[
    DRY_RUN,
    (
        "fieldManager",
        "string",
        "Who the fields belong to that are written; an apply must say it.",
    ),
    (
        "fieldValidation",
        "string",
        "What becomes of fields that are unknown or come twice: Ignore, Warn or Strict.",
    ),
];
pub(super) const FORCE: Parameter = (
    "force",
    "boolean",
    "Whether an apply takes fields from others who own them.",
);
pub(super) const DELETE: &[Parameter] = &[
    DRY_RUN,
    (
        "gracePeriodSeconds",
        "integer",
        "How long the object may take to end; 0 is at once.",
    ),
    (
        "orphanDependents",
        "boolean",
        "Whether what the object owns stays. Deprecated: use propagationPolicy.",
    ),
    (
        "propagationPolicy",
        "string",
        "What becomes of what the object owns: Orphan, Background or Foreground.",
    ),
];
pub(super) const LOG: &[Parameter] = &[
    CONTAINER,
    (
        "follow",
        "boolean",
        "Whether to go on with what is written from now on.",
    ),
    (
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "Whether the kubelet's certificate need not be checked.",
    ),
    ("limitBytes", "integer", "How many bytes at most."),
    (
        "previous",
        "boolean",
        "Whether it is the container before the one that runs.",
    ),
    (
        "sinceSeconds",
        "integer",
        "How old in seconds the first line may be.",
    ),
    (
        "stream",
        "string",
        "Which of what the container writes: All, Stdout or Stderr.",
    ),
    (
        "tailLines",
        "integer",
        "How many lines from the end at most.",
    ),
    (
        "timestamps",
        "boolean",
        "Whether each line begins with when it was written.",
    ),
];
const CONTAINER: Parameter = (
    "container",
    "string",
    "The container; it need not be said where a Pod has one only.",
);
const COMMAND: Parameter = (
    "command",
    "string",
    "The program and its arguments, each on its own; no shell reads them.",
);
const STDERR: Parameter = ("stderr", "boolean", "Whether its errors are wanted.");
const STDIN: Parameter = ("stdin", "boolean", "Whether it is given input.");
const STDOUT: Parameter = ("stdout", "boolean", "Whether its output is wanted.");
const TTY: Parameter = ("tty", "boolean", "Whether it has a terminal.");
pub(super) const EXEC: &[Parameter] = &[COMMAND, CONTAINER, STDERR, STDIN, STDOUT, TTY];
pub(super) const ATTACH: &[Parameter] = &[CONTAINER, STDERR, STDIN, STDOUT, TTY];
pub(super) const PORT_FORWARD: &[Parameter] =
    &[("ports", "integer", "The ports; a WebSocket must say them.")];
pub(super) const PROXY: &[Parameter] = &[("path", "string", "The path that is asked for there.")];

fn parameter(place: &str, (name, kind, description): (&str, &str, &str)) -> Value {
    json!({
        "name": name,
        "in": place,
        "description": description,
        "schema": {"type": kind, "uniqueItems": true},
    })
}

/// Parameters of a query.
pub(super) fn query(all: &[Parameter]) -> Vec<Value> {
    all.iter().map(|one| parameter("query", *one)).collect()
}

/// A part of a path.
pub(super) fn in_path(name: &str, description: &str) -> Value {
    let mut parameter = parameter("path", (name, "string", description));
    parameter["required"] = json!(true);
    parameter
}
