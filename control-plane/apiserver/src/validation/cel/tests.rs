#![allow(clippy::unwrap_used)]

use super::*;

/// The type, or the fault without where it is.
fn type_in(environment: &Environment, expression: &str) -> String {
    match compile(expression, environment) {
        Ok(of) => of.to_string(),
        Err(fault) => {
            let told = fault.strip_prefix("compilation failed: ERROR: <input>:1:");
            let told = told.unwrap_or_else(|| panic!("{expression}: {fault}"));
            let (_column, told) = told.split_once(": ").unwrap();
            told.lines().next().unwrap().to_owned()
        }
    }
}

#[test]
fn faults_say_where_they_are() {
    let fault = compile("true &&\n  missing", &Environment::admission()).unwrap_err();
    assert_eq!(
        fault,
        "compilation failed: ERROR: <input>:2:3: undeclared reference to 'missing' (in container '')\n |   missing\n | ..^"
    );
}

#[test]
fn expressions_of_requests_have_types() {
    let environment = Environment::admission().authorizer().params(true);
    let table = [
        ("object.spec.replicas <= 5", "bool"),
        ("object.metadata.name", "dyn"),
        (
            "has(object.metadata.labels) && 'a' in object.metadata.labels",
            "bool",
        ),
        (
            "object.spec.containers.all(c, c.image.startsWith('a/') || c.image == params.image)",
            "bool",
        ),
        (
            "object.spec.containers.exists_one(c, has(c.securityContext))",
            "bool",
        ),
        ("[1, 2].map(x, x * 2)", "list(int)"),
        ("['a', 'b'].filter(x, x > 'a')", "list(string)"),
        (
            "object.items.map(x, x.a > 1, string(x.a)) + ['a']",
            "list(string)",
        ),
        ("{'a': 1, 'b': 2}", "map(string, int)"),
        ("{'a': 1}.all(k, k.size() == 1)", "bool"),
        ("[[1], []][0]", "list(int)"),
        ("request.userInfo.groups.join(',')", "string"),
        ("request.userInfo.extra['a'][0]", "string"),
        ("request.kind.kind + '/' + request.namespace", "string"),
        (
            "namespaceObject.metadata.labels.?env.orValue('none')",
            "string",
        ),
        ("object.?spec.?replicas.orValue(1) == 1", "bool"),
        ("object[?'a'].hasValue()", "bool"),
        ("optional.none()", "optional_type(dyn)"),
        ("optional.of(1).optMap(x, string(x)).value()", "string"),
        (
            "authorizer.group('apps').resource('deployments').check('create').allowed()",
            "bool",
        ),
        (
            "authorizer.requestResource.check('update').reason()",
            "string",
        ),
        (
            "authorizer.serviceAccount('a', 'b').path('/healthz').check('get').errored()",
            "bool",
        ),
        (
            "quantity('1Gi').add(quantity('1')).isGreaterThan(quantity('1G'))",
            "bool",
        ),
        (
            "ip.isCanonical('::1') && cidr('10.0.0.0/8').containsIP(ip('10.1.1.1'))",
            "bool",
        ),
        ("!format.dns1123Label().validate('a').hasValue()", "bool"),
        (
            "format.named('uuid').value().validate('a')",
            "optional_type(list(string))",
        ),
        ("sets.contains([1, 2], [1])", "bool"),
        ("object.spec.all(i, v, i < 3 && v.ok)", "bool"),
        ("['a'].transformMap(i, v, v)", "map(int, string)"),
        ("{'a': 1}.transformList(k, v, v > 0, k)", "list(string)"),
        (
            "timestamp('2026-01-01T00:00:00Z') + duration('1h') > timestamp(0)",
            "bool",
        ),
        ("1 < 2.0 && 1u >= 1", "bool"),
        ("true ? 'a' : 'b'", "string"),
        ("true ? object.a : 'b'", "dyn"),
        ("(true ? object.a : 'b') + 1", "int"),
        ("type(1) == int", "bool"),
        ("[3, 1].sort().slice(0, 1)", "list(int)"),
        ("[{'a': 1}].sortBy(e, e.a)[0].a", "int"),
        ("[?optional.of(1), 2]", "list(int)"),
        ("sign(quantity('1'))", "int"),
        ("'a'.matches('^a$') && matches('a', 'b')", "bool"),
        (
            "object.a.b.c.d()",
            "undeclared reference to 'd' (in container '')",
        ),
        (
            "missing == 1",
            "undeclared reference to 'missing' (in container '')",
        ),
        ("request.verb", "undefined field 'verb'"),
        (
            "1 + 'a'",
            "found no matching overload for '_+_' applied to '(int, string)'",
        ),
        (
            "'a'.contains(1)",
            "found no matching overload for 'contains' applied to 'string.(int)'",
        ),
        (
            "1.all(x, true)",
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("[1, 'a']", "expected type 'int' but found 'string'"),
        ("'a'.b", "type 'string' does not support field selection"),
        (
            "variables.a",
            "undeclared reference to 'variables' (in container '')",
        ),
        (
            "Object{}",
            "undeclared reference to 'Object' (in container '')",
        ),
        (
            "x.all(y, y)",
            "undeclared reference to 'x' (in container '')",
        ),
        (
            "[1].all(x, x)",
            "found no matching overload for '_&&_' applied to '(bool, int)'",
        ),
    ];
    for (expression, want) in table {
        assert_eq!(type_in(&environment, expression), want, "{expression}");
    }
}

#[test]
fn what_is_no_expression_says_where() {
    for source in [
        "", " ", "object.", "a ? b", "1 +", "'a", "[][`", "a b", "))", "f(", "has(1)",
    ] {
        let fault = compile(source, &Environment::admission()).unwrap_err();
        assert!(
            fault.starts_with("compilation failed: "),
            "{source}: {fault}"
        );
    }
    let long = " ".repeat(100_001);
    let fault = compile(&long, &Environment::admission()).unwrap_err();
    assert!(fault.ends_with("size: 100001, limit 100000"), "{fault}");
    let fault = compile("object.spec ==", &Environment::admission()).unwrap_err();
    assert!(fault.contains("ERROR: <input>:1:"), "{fault}");
    assert!(fault.contains("\n | object.spec ==\n | "), "{fault}");
}

#[test]
fn variables_and_patches_are_there_where_they_are_declared() {
    let none = Environment::admission().composing();
    assert_eq!(type_in(&none, "variables.a"), "undefined field 'a'");
    let mut environment = Environment::admission().patches();
    environment.compose("count", Type::Int);
    let table = [
        ("variables.count + 1", "int"),
        ("variables.other", "undefined field 'other'"),
        (
            "Object{metadata: Object.metadata{annotations: {'a': 'b'}}}",
            "Object",
        ),
        (
            "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b'), value: 1}]",
            "list(JSONPatch)",
        ),
        ("JSONPatch{verb: 'add'}", "undefined field 'verb'"),
        ("JSONPatch{op: 1}", "expected type 'string' but found 'int'"),
    ];
    for (expression, want) in table {
        assert_eq!(type_in(&environment, expression), want, "{expression}");
    }
}

#[test]
fn devices_have_attributes_and_capacities() {
    let table = [
        ("device.driver == 'a' && device.attributes['a'].b", "bool"),
        ("device.attributes['a'].b", "any"),
        (
            "'b' in device.attributes['a'] && device.attributes['a'].b.startsWith('c')",
            "bool",
        ),
        (
            "device.capacity['a'].memory.compareTo(quantity('1Gi')) >= 0",
            "bool",
        ),
        ("device.allowMultipleAllocations == true", "bool"),
        (
            "cel.bind(a, device.attributes['a'], has(a.b) && a.b == 1)",
            "bool",
        ),
        ("device.name", "undefined field 'name'"),
        (
            "object",
            "undeclared reference to 'object' (in container '')",
        ),
    ];
    for (expression, want) in table {
        assert_eq!(
            type_in(&Environment::device(), expression),
            want,
            "{expression}"
        );
    }
}

#[test]
fn results_are_of_the_wanted_types() {
    let environment = Environment::admission();
    assert_eq!(compile_as("true", &environment, &[Type::Bool]), Ok(()));
    assert_eq!(
        compile_as("1", &environment, &[Type::Bool]),
        Err("must evaluate to bool but got int".to_owned())
    );
    assert_eq!(
        compile_as("1", &environment, &[Type::String, Type::Null]),
        Err("must evaluate to one of [string null_type] but got int".to_owned())
    );
}

#[test]
fn what_is_nested_as_deep_as_is_allowed_is_read() {
    let environment = Environment::admission();
    let deep = [
        "(".repeat(60) + "1" + &")".repeat(60),
        "object".to_owned() + &".a".repeat(240),
        "1".to_owned() + &" + 1".repeat(240),
        "!".repeat(240) + "true",
        "[1]".to_owned() + &".map(x, x)".repeat(100),
        "true".to_owned() + &" && true".repeat(5000),
        "'a'".to_owned() + &" + 'a'".repeat(240),
    ];
    for expression in deep {
        let fault = compile(&expression, &environment).err();
        assert_eq!(fault, None, "{expression}");
    }
    // Whatever is refused is refused with an answer.
    for expression in [
        "(".repeat(124),
        "[".repeat(124),
        "a.".repeat(249),
        "f(".repeat(120),
        "-".repeat(249),
    ] {
        assert!(compile(&expression, &environment).is_err());
    }
}

#[test]
fn types_do_not_grow_faster_than_expressions() {
    // Were a map's type to have the last one twice, this one would have 2^16 parts.
    let mut expression = "{1: 1}".to_owned();
    for _ in 0..16 {
        expression = format!("[{expression}].map(x, {{x: x}})[0]");
    }
    let of = type_in(&Environment::admission(), &expression);
    assert!(of.len() < 1000, "{} characters", of.len());
}

#[test]
fn identifiers() {
    assert!(is_identifier("_a1"));
    for name in ["", "1a", "a-b", "in", "namespace"] {
        assert!(!is_identifier(name), "{name}");
    }
}
