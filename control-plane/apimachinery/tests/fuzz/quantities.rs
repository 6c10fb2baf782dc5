//! Quantities: what is read is what was written, to the last digit.

use coracle_apimachinery::quantity::{Format, Quantity};

use crate::draw::text_of;
use crate::fuzz;

const WORDS: &[&str] = &[
    "0",
    "1",
    "9",
    "00",
    "125",
    "1024",
    "999",
    ".",
    ".",
    "-",
    "+",
    "n",
    "u",
    "m",
    "k",
    "M",
    "G",
    "T",
    "P",
    "E",
    "Ki",
    "Mi",
    "Gi",
    "Ti",
    "Pi",
    "Ei",
    "e3",
    "e-3",
    "E6",
    "e",
    "e+",
    "i",
    " ",
    "1e9",
    "9223372036854775807",
    "9223372036854775808",
    "0000000000001",
    "123456789012345678901234567890",
    "e1000",
    "e-1000",
    "e9223372036854775807",
    "e99999999999999999999",
];

/// The most in billionths, of the binary format and of the others.
const MAX: &str = "9223372036854775807000000000";
const WIDE: &str = "170141183460469231731687303715884105727";

/// The digits of the amount in billionths, rounded up and capped, by long multiplication. `None`
/// for what is no quantity.
fn by_hand(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = unsigned.split_at(end.unwrap_or(unsigned.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let decimal = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let binary = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let place = |of: &[&str]| of.iter().position(|known| *known == suffix);
    let (exponent, times) = match (place(&decimal), place(&binary)) {
        (Some(place), _) => (3 * place as i64 - 9, 0),
        (_, Some(times)) => (0, times),
        _ => (suffix.strip_prefix(['e', 'E'])?.parse().ok()?, 0),
    };
    let mut digits: Vec<u32> = [whole, fraction]
        .concat()
        .bytes()
        .map(|b| u32::from(b - b'0'))
        .collect();
    for _ in 0..times {
        let mut carry = 0;
        for digit in digits.iter_mut().rev() {
            let product = *digit * 1024 + carry;
            (*digit, carry) = (product % 10, product / 10);
        }
        for digit in carry.to_string().bytes().rev() {
            digits.insert(0, u32::from(digit - b'0'));
        }
    }
    if digits.iter().all(|digit| *digit == 0) {
        return Some("0".to_owned());
    }
    let shift = exponent
        .saturating_add(9)
        .saturating_sub(fraction.len() as i64);
    // So far that nothing of the number is left, or too much.
    let shift = shift.clamp(-10_000, 10_000);
    let mut up = false;
    digits.extend((0..shift).map(|_| 0));
    for _ in shift..0 {
        up |= digits.pop().is_some_and(|digit| digit != 0);
    }
    if up {
        match digits.iter().rposition(|digit| *digit != 9) {
            Some(place) => {
                digits[place] += 1;
                digits[place + 1..].fill(0);
            }
            None => {
                digits.fill(0);
                digits.insert(0, 1);
            }
        }
    }
    let text: String = digits.iter().map(u32::to_string).collect();
    let text = text.trim_start_matches('0');
    let binary = suffix.ends_with('i');
    let max = if binary { MAX } else { WIDE };
    let larger = (text.len(), text) > (max.len(), max);
    Some(if larger { max } else { text }.to_owned())
}

fn target(bytes: &[u8]) {
    let text = text_of(bytes, WORDS);
    let Ok(quantity) = text.parse::<Quantity>() else {
        return;
    };
    let sign = if text.starts_with('-') { "-" } else { "" };
    let nanos = by_hand(&text).unwrap();
    let exact: Quantity = format!("{sign}{nanos}n").parse().unwrap();
    assert_eq!(quantity, exact, "{text} is not {sign}{nanos}n");

    let canonical = quantity.to_string();
    let again: Quantity = canonical.parse().unwrap();
    assert_eq!(again, quantity, "{text} became {canonical}");
    assert_eq!(again.to_string(), canonical, "{text}");
    if again.format() != quantity.format() {
        // A suffix of the other format stands for what has none in its own, and zero has neither.
        let plain = canonical.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        assert!(
            plain || quantity.format() == Format::BinarySi,
            "{text} became {canonical}"
        );
    }
    let sum = quantity + Quantity::ZERO;
    assert_eq!(sum, quantity);
    let mut nothing = quantity;
    nothing.sub(&quantity);
    assert!(nothing.is_zero(), "{text}");
    assert!(
        quantity.milli_value() == i64::MAX
            || quantity.is_negative()
            || quantity.value() <= quantity.milli_value()
    );
}

#[test]
fn quantities() {
    fuzz!(target);
}
