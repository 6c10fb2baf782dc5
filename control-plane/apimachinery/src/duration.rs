//! Durations as Go writes them, which is how the API's durations are in JSON: `1m0s`, `15.034s`,
//! `2ms`.
//!
//! Source: Go's `time.Duration.String` and `time.ParseDuration`.

const SECOND: u64 = 1_000_000_000;
/// Units below a second, with their nanoseconds.
const SMALL: [(&str, u64); 3] = [("ms", 1_000_000), ("µs", 1_000), ("ns", 1)];
const HOUR: u64 = 3600 * SECOND;
/// All that may be read; µ is one of two letters.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", HOUR),
];

/// Writes a duration of so many nanoseconds.
#[must_use]
pub fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let all = nanos.unsigned_abs();
    if all == 0 {
        return "0s".to_owned();
    }
    if all < SECOND {
        let unit = SMALL.into_iter().find(|(_, unit)| all >= *unit);
        let (name, unit) = unit.unwrap_or(("ns", 1));
        return format!("{sign}{}{name}", decimal(all, unit));
    }
    let (hours, minutes) = (all / HOUR, all / (60 * SECOND) % 60);
    let seconds = decimal(all % (60 * SECOND), SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// A number of units with no more digits than it takes.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

/// Reads a duration: its nanoseconds; none where it is none, or too long to be counted.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut nanos: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let length = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (name, next) = after.split_at(length.unwrap_or(after.len()));
        let (_, unit) = UNITS.into_iter().find(|(known, _)| *known == name)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        nanos = nanos.checked_add(whole.checked_mul(unit.into())?)?;
        // Digits beyond are less than a nanosecond, of whatever unit.
        let digits = &fraction[..fraction.len().min(15)];
        if !digits.is_empty() {
            let part = digits.parse::<i128>().ok()? * i128::from(unit);
            nanos = nanos.checked_add(part / 10_i128.pow(digits.len() as u32))?;
        }
        rest = next;
    }
    i64::try_from(if negative { -nanos } else { nanos }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (999_999_999, "999.999999ms"),
            (1_000_000_000, "1s"),
            (15_034_000_000, "15.034s"),
            (60_000_000_000, "1m0s"),
            (119_020_000_000, "1m59.02s"),
            (3_600_000_000_000, "1h0m0s"),
            (-3_723_000_000_001, "-1h2m3.000000001s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(format(nanos), text);
            assert_eq!(parse(text), Some(nanos), "{text}");
        }
    }

    #[test]
    fn what_go_reads_is_read_and_nothing_else() {
        for (text, want) in [
            ("0", Some(0)),
            ("+5s", Some(5_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("5us3ms", Some(3_005_000)),
            ("1μs", Some(1_000)),
            ("0.3333333333333333333h", Some(1_199_999_999_999)),
            ("", None),
            ("-", None),
            ("3", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("1x", None),
            ("1 s", None),
            ("9223372036854775808ns", None),
            ("99999999999999999999999999999999999999999999s", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }
}
