//! The page that says what of Kubernetes is shown, and by which test.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::lists::{self, Behaviour, CAPABILITIES, Waiting};
use super::sources::{self, Test};
use crate::harness::Api;

const PAGE: &str = "tests/CONFORMANCE.md";
const REWRITE: &str = "UPDATE=1 cargo test -p coracle-apiserver --test api conformance::page";

/// The page is what the lists, the sources of the tests and the server's discovery give.
#[tokio::test]
async fn the_page_of_conformance_is_up_to_date() {
    let page = page(&Api::new().await).await;
    let path = lists::root().join(PAGE);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = there.lines().zip(page.lines()).find(|(is, new)| is != new);
    assert!(
        there == page,
        "{PAGE} is stale, first at {differs:?}; rewrite it: {REWRITE}"
    );
}

async fn page(api: &Api) -> String {
    let mut page = format!(
        "# Conformance\n\n\
         What is served, and which test shows which behaviour that Kubernetes' conformance demands. \
         This page is made from `tests/conformance/`, from the sources of the tests and from the \
         server's discovery:\n\n    {REWRITE}\n\n"
    );
    behaviours(&mut page);
    endpoints(&mut page);
    kinds(&mut page, api).await;
    page
}

/// How a behaviour stands.
enum Standing<'a> {
    Shown(&'a Test),
    Waits(&'a str),
    /// The API alone could show it.
    Missing,
}

fn behaviours(page: &mut String) {
    let (behaviours, waits) = (lists::behaviours(), lists::waits());
    let tests = sources::tests(&lists::root());
    let standings = stand(&behaviours, &waits, &tests);
    let count = |which: fn(&Standing<'_>) -> bool| standings.iter().filter(|s| which(s)).count();
    let shown = count(|standing| matches!(standing, Standing::Shown(_)));
    let missing = count(|standing| matches!(standing, Standing::Missing));
    let musts: usize = standings
        .iter()
        .map(|standing| match standing {
            Standing::Shown(test) => test.musts,
            _ => 0,
        })
        .sum();
    let _ = write!(
        page,
        "## Behaviours\n\n\
         Of {} behaviours {shown} are shown, with {musts} demands asserted; {missing} could be shown by \
         the API alone and are not yet; the others wait for a capability:\n\n\
         | waits for | behaviours | that is |\n|---|---|---|\n",
        behaviours.len(),
    );
    for (capability, what) in CAPABILITIES {
        let waiting = standings
            .iter()
            .filter(|standing| matches!(standing, Standing::Waits(name) if name == capability));
        let _ = writeln!(page, "| {capability} | {} | {what} |", waiting.count());
    }
    let _ = write!(
        page,
        "\nA test that shows a behaviour is named after it: without tags, in lower case, everything \
         but letters and digits as one underscore. *MUST* is how many demands it asserts, and how \
         often upstream's description says MUST.\n",
    );
    let mut file = "";
    for (behaviour, standing) in behaviours.iter().zip(&standings) {
        if behaviour.file != file {
            file = &behaviour.file;
            let _ = write!(
                page,
                "\n### {file}\n\n| behaviour | shown by | MUST |\n|---|---|---|\n"
            );
        }
        let (by, asserted) = match standing {
            Standing::Shown(test) => (
                format!("`{}` in `{}`", behaviour.test_name(), test.file),
                test.musts.to_string(),
            ),
            Standing::Waits(what) => (format!("waits for {what}"), "–".to_owned()),
            Standing::Missing => ("nothing yet".to_owned(), "–".to_owned()),
        };
        let name = behaviour.name.replace('|', "\\|");
        let _ = writeln!(page, "| {name} | {by} | {asserted} / {} |", behaviour.musts);
    }
}

/// How each behaviour stands. Fails where the lists or the tests contradict each other.
fn stand<'a>(
    behaviours: &[Behaviour],
    waits: &'a [[String; 2]],
    tests: &'a BTreeMap<String, Test>,
) -> Vec<Standing<'a>> {
    let by_subject: BTreeMap<&str, &str> = waits
        .iter()
        .map(|[subject, what]| (subject.as_str(), what.as_str()))
        .collect();
    let mut wrong = Vec::new();
    for [subject, what] in waits {
        if what != "-" && !CAPABILITIES.iter().any(|(name, _)| name == what) {
            wrong.push(format!("waits.tsv: {what} is no capability"));
        }
        if !behaviours
            .iter()
            .any(|known| [&known.name, &known.file].contains(&subject))
        {
            wrong.push(format!(
                "waits.tsv: {subject} is neither behaviour nor file"
            ));
        }
    }
    let names: Vec<String> = behaviours.iter().map(Behaviour::test_name).collect();
    for (name, test) in tests {
        if !names.contains(name) {
            wrong.push(format!("{}: no behaviour is named like {name}", test.file));
        }
    }
    let mut standings = Vec::new();
    for (behaviour, name) in behaviours.iter().zip(&names) {
        let by_name = by_subject.get(behaviour.name.as_str());
        let waits = by_name.or_else(|| by_subject.get(behaviour.file.as_str()));
        standings.push(match (tests.get(name), waits) {
            (Some(test), _) => {
                if test.musts < behaviour.musts {
                    let (has, wants) = (test.musts, behaviour.musts);
                    wrong.push(format!(
                        "{}: {name} lists {has} of {wants} demands",
                        test.file
                    ));
                }
                if by_name.is_some_and(|what| *what != "-") {
                    wrong.push(format!("waits.tsv: {} waits no more", behaviour.name));
                }
                Standing::Shown(test)
            }
            (None, Some(what)) if *what != "-" => Standing::Waits(what),
            (None, _) => Standing::Missing,
        });
    }
    for [subject, what] in waits.iter().filter(|[_, what]| what != "-") {
        let mut stands = behaviours.iter().zip(&standings);
        let waits = stands.any(|(behaviour, standing)| {
            let about = [&behaviour.name, &behaviour.file].contains(&subject);
            about && matches!(standing, Standing::Waits(capability) if capability == what)
        });
        if !waits {
            wrong.push(format!("waits.tsv: nothing of {subject} waits for {what}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    standings
}

fn endpoints(page: &mut String) {
    let (endpoints, waiting) = (lists::endpoints(), Waiting::read());
    let waits = endpoints
        .iter()
        .filter(|endpoint| waiting.of(endpoint).is_some());
    let _ = write!(
        page,
        "\n## Endpoints\n\n\
         Of {} endpoints that tests of conformance call all answer as their kinds should, but {} that \
         wait; `endpoints.rs` among the tests of the API server calls each of them.\n\n\
         | endpoint | action | path | |\n|---|---|---|---|\n",
        endpoints.len(),
        waits.count(),
    );
    for endpoint in &endpoints {
        let state = match waiting.of(endpoint) {
            Some((_, what)) => format!("waits for {what}"),
            None => "answers".to_owned(),
        };
        let action = endpoint.action.replace('-', "discovery");
        let _ = writeln!(
            page,
            "| {} | {action} | `{}` | {state} |",
            endpoint.name, endpoint.path
        );
    }
}

/// Every resource and subresource that discovery knows, with its verbs.
async fn kinds(page: &mut String, api: &Api) {
    page.push_str(
        "\n## Kinds\n\n| group and version | resource | kind | namespaced | verbs |\n|---|---|---|---|---|\n",
    );
    for list in resource_lists(api).await {
        for resource in list["resources"].as_array().unwrap() {
            let text = |field: &str| resource[field].as_str().unwrap_or_default().to_owned();
            let verbs = resource["verbs"].as_array().unwrap();
            let verbs: Vec<&str> = verbs.iter().filter_map(Value::as_str).collect();
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {} |",
                list["groupVersion"].as_str().unwrap(),
                text("name"),
                text("kind"),
                if resource["namespaced"] == true {
                    "yes"
                } else {
                    "no"
                },
                verbs.join(", "),
            );
        }
    }
}

/// The document of discovery of each group-version.
pub(crate) async fn resource_lists(api: &Api) -> Vec<Value> {
    let mut lists = vec![api.get("/api/v1").await.ok(200)];
    for group in api.get("/apis").await.ok(200)["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            let path = format!("/apis/{}", version["groupVersion"].as_str().unwrap());
            lists.push(api.get(&path).await.ok(200));
        }
    }
    lists
}
