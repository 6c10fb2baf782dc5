#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Quantity {
    text.parse().unwrap()
}

#[test]
fn canonical_spelling() {
    let table = [
        ("0", "0"),
        ("0Ki", "0"),
        ("Mi", "0"),
        ("-k", "0"),
        ("+", "0"),
        (".", "0"),
        ("-0.0", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        (".5", "500m"),
        ("5.", "5"),
        ("0.1", "100m"),
        ("100m", "100m"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1500", "1500"),
        ("1k", "1k"),
        ("1000k", "1M"),
        ("1000Gi", "1000Gi"),
        ("1024Gi", "1Ti"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("1023", "1023"),
        ("1Ki", "1Ki"),
        ("1.0001Ki", "1024102400u"),
        ("-1Ki", "-1Ki"),
        ("1e3", "1e3"),
        ("12e2", "1200"),
        ("1E6", "1e6"),
        ("1e-3", "1e-3"),
        ("1E", "1E"),
        ("1Ei", "1Ei"),
        ("100n", "100n"),
        ("1u", "1u"),
        ("0.1n", "1n"),
        ("0.0000000001", "1n"),
        ("1.0000000001", "1000000001n"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9223372036854775808"),
        ("100E", "100E"),
        ("9Ei", "9223372036854775807"),
        ("-100E", "-100E"),
        ("-9Ei", "-9223372036854775807"),
        ("1e-100000", "1e-9"),
        // More than there is of anything is as much as can be counted.
        ("1e100000", "170141183460469231731687303715884105727e-9"),
        (
            "12345678901234567890123456789012345678901234567890",
            "170141183460469231731687303715884105727n",
        ),
    ];
    for (input, want) in table {
        assert_eq!(parse(input).to_string(), want, "{input}");
    }
}

#[test]
fn errors() {
    for text in [
        "", "a", "1.2.3", "1 ", " 1", "1a", "1e1.5", "1e+-1", "1\u{663}",
    ] {
        assert_eq!(text.parse::<Quantity>(), Err(Error::Format), "{text:?}");
    }
    for text in ["Pi", "-Ei", "e-10"] {
        assert_eq!(text.parse::<Quantity>(), Err(Error::Numeric), "{text:?}");
    }
    for text in [
        "--1",
        "1e",
        "1ki",
        "1Kii",
        "1i",
        "1mm",
        "1K",
        "1m3",
        "1e99999999999999999999",
    ] {
        assert_eq!(text.parse::<Quantity>(), Err(Error::Suffix), "{text:?}");
    }
}

#[test]
fn values_round_up() {
    assert_eq!(parse("1m").value(), 1);
    assert_eq!(parse("1001m").value(), 2);
    assert_eq!(parse("-1001m").value(), -2);
    assert_eq!(parse("1u").milli_value(), 1);
    assert_eq!(parse("2.5").milli_value(), 2500);
    assert_eq!(parse("9E").milli_value(), i64::MAX);
    assert_eq!(parse("1.5Ki").value(), 1536);
}

#[test]
fn sums_keep_the_format() {
    let mut sum = Quantity::ZERO;
    sum.add(&parse("512Mi"));
    sum.add(&parse("512Mi"));
    assert_eq!(sum.to_string(), "1Gi");
    sum.sub(&parse("1Gi"));
    assert_eq!(sum.to_string(), "0");
    assert_eq!((parse("1") + parse("500m")).to_string(), "1500m");
    assert!(parse("1Gi") > parse("1G") && parse("1000m") == parse("1"));
    assert_eq!(serde_json::to_string(&parse("1000m")).unwrap(), "\"1\"");
    assert_eq!(
        serde_json::from_str::<Quantity>("\"2Ki\"").unwrap().value(),
        2048
    );
}

proptest! {
    #[test]
    fn display_parses_to_the_same(value in any::<i64>(), divisor in 0u32..9, binary in any::<bool>()) {
        let format = if binary { Format::BinarySi } else { Format::DecimalSi };
        let nanos = i128::from(value) * NANO / 10i128.pow(divisor);
        let quantity = Quantity { nanos: nanos.clamp(-MAX, MAX), format };
        let printed = quantity.to_string();
        let again = parse(&printed);
        prop_assert_eq!(again, quantity);
        // What has no suffix is decimal to whoever reads it, as in Kubernetes.
        let keeps_format = !binary || printed.ends_with('i');
        if keeps_format {
            prop_assert_eq!(again.to_string(), printed);
        }
    }

    #[test]
    fn binary_suffixes_multiply(value in 0u32..1_000_000, power in 0usize..4) {
        let got = parse(&format!("{value}{}", BINARY[power]));
        prop_assert_eq!(got.value(), i64::from(value) << (10 * (power + 1)));
    }

    #[test]
    fn fractions_agree_with_whole_numbers(value in 0i64..1_000_000_000, power in 0usize..2) {
        // value/1000 Xi is value Xi divided by a thousand, rounded up to a nano.
        let fraction = parse(&format!("{}.{:03}{}", value / 1000, value % 1000, BINARY[power]));
        let whole = parse(&format!("{value}{}", BINARY[power]));
        prop_assert_eq!(fraction.nanos, whole.nanos / 1000);
    }

    #[test]
    fn order_is_that_of_the_numbers(a in any::<i64>(), b in any::<i64>()) {
        let (x, y) = (Quantity::from_milli(a), Quantity::from_milli(b));
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        prop_assert_eq!(x.milli_value(), a.max(-i64::MAX));
    }

    #[test]
    fn nothing_panics(text in "[-+]?[0-9.]{0,40}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,20}") {
        if let Ok(quantity) = text.parse::<Quantity>() {
            let shown = quantity.to_string();
            prop_assert_eq!(parse(&shown), quantity);
        }
    }
}
