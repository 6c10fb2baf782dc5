#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn selects() {
    let web = labels(&[("app", "web"), ("tier", "front"), ("n", "5"), ("empty", "")]);
    let table = [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier = front", true),
        ("app!=web", false),
        ("other!=web", true),
        ("app in (api,web)", true),
        ("app in (api)", false),
        ("app notin (api, db)", true),
        ("app notin (web)", false),
        ("other notin (web)", true),
        ("app", true),
        ("!app", false),
        ("! other", true),
        ("app,!other,tier in (front)", true),
        ("n>4", true),
        ("n>5", false),
        ("n<6", true),
        ("app>1", false),
        ("other<1", false),
        ("empty=", true),
        ("app=", false),
        ("empty in ()", true),
        ("empty in (,a)", true),
        ("in in (in),in notin (a)", false),
        ("app=web,app!=api", true),
    ];
    for (text, want) in table {
        assert_eq!(Selector::parse(text).unwrap().matches(&web), want, "{text}");
    }
    assert!(!Selector::nothing().matches(&web) && Selector::everything().matches_optional(None));
    assert!(Selector::from_set(&labels(&[("app", "web")])).matches(&web));
}

#[test]
fn errors() {
    for text in [
        "a b",
        "a in",
        "a in (",
        "a in (b",
        "a in (b c)",
        ",",
        "a,",
        "a,,b",
        "=",
        "!",
        "!a=b",
        "a===b",
        "a=b c",
        "a>x",
        "a>",
        "-a",
        "a=-b",
        "a/b/c",
        "a in b",
        "(a)",
    ] {
        assert!(Selector::parse(text).is_err(), "{text:?}");
    }
    assert_eq!(
        Selector::parse("a b").unwrap_err().to_string(),
        "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
    );
}

#[test]
fn of_objects() {
    let requirement = |operator: &str, values: &[&str]| LabelSelectorRequirement {
        key: "app".into(),
        operator: operator.into(),
        values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
    };
    let selector = LabelSelector {
        match_labels: Some(labels(&[("tier", "front")])),
        match_expressions: Some(vec![requirement("In", &["web", "api"])]),
    };
    let parsed = Selector::from_label_selector(&selector).unwrap();
    assert_eq!(parsed.to_string(), "app in (api,web),tier=front");
    assert_eq!(format_label_selector(Some(&selector)), parsed.to_string());
    assert_eq!(
        format_label_selector(Some(&LabelSelector::default())),
        "<none>"
    );
    assert_eq!(format_label_selector(None), "<none>");
    let one = LabelSelector {
        match_labels: Some(labels(&[("app", "x")])),
        match_expressions: Some(vec![
            requirement("In", &["web"]),
            requirement("NotIn", &["api"]),
            requirement("DoesNotExist", &[]),
        ]),
    };
    let shown = "app=x,app in (web),app notin (api),!app";
    assert_eq!(format_label_selector(Some(&one)), shown);
    assert!(
        Selector::from_label_selector(&LabelSelector::default())
            .unwrap()
            .is_everything()
    );
    assert_eq!(Selector::from_optional(None).unwrap(), Selector::nothing());
    for (operator, values) in [("In", &[][..]), ("Exists", &["a"]), ("Like", &["a"])] {
        let bad = LabelSelector {
            match_expressions: Some(vec![requirement(operator, values)]),
            ..Default::default()
        };
        assert!(Selector::from_label_selector(&bad).is_err(), "{operator}");
    }
}

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let key = "([a-z]{1,3}/)?[a-z]([-a-z._]{0,3}[a-z])?";
    let values = proptest::collection::btree_set("([a-z0-9]{1,3})?", 1..4);
    (key, values, 0..6, any::<i64>()).prop_map(|(key, values, operator, bound)| {
        let bound = bound.unsigned_abs().to_string();
        let values: Vec<String> = values.into_iter().collect();
        let (operator, values) = match operator {
            0 => (Operator::In, values),
            1 => (Operator::NotIn, values),
            2 => (Operator::Exists, vec![]),
            3 => (Operator::DoesNotExist, vec![]),
            4 => (
                Operator::GreaterThan,
                vec![bound.chars().take(18).collect()],
            ),
            _ => (Operator::LessThan, vec![bound.chars().take(18).collect()]),
        };
        Requirement::new(key, operator, values).unwrap()
    })
}

proptest! {
    #[test]
    fn display_parses_to_the_same(requirements in proptest::collection::vec(any_requirement(), 0..5)) {
        let selector = Selector::new(requirements);
        prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
    }

    #[test]
    fn exclusion_is_the_opposite(value in "[ab]", wanted in proptest::collection::btree_set("[ab]", 1..3)) {
        let set = labels(&[("k", &value)]);
        let with = |operator| Requirement::new("k", operator, wanted.clone()).unwrap();
        prop_assert_ne!(with(Operator::In).matches(&set), with(Operator::NotIn).matches(&set));
    }

    #[test]
    fn nothing_panics(text in "[aü=!,()<> in]{0,12}") {
        let _ = Selector::parse(&text);
    }
}
