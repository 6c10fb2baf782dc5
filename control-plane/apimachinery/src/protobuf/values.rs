//! Times and other values that protobuf and JSON write differently.

use std::io::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Error;
use super::wire::{Reader, Wire};

/// The zero of Go's `time.Time`, the beginning of year 1, which is null in JSON.
const ZERO_SECONDS: i64 = -62_135_596_800;

/// Digits behind the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    Seconds,
    Micros,
}

/// Appends the JSON of a time, RFC 3339 in UTC; returns whether it is null.
pub(super) fn write_time(
    bytes: &[u8],
    precision: Precision,
    out: &mut Vec<u8>,
) -> Result<bool, Error> {
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    for field in Reader::new(bytes) {
        match field? {
            (1, Wire::Varint(number)) => seconds = number.cast_signed(),
            (2, Wire::Varint(number)) => nanos = number as i32,
            _ => {}
        }
    }
    if precision == Precision::Seconds {
        // What is finer is never read, because JSON could not show it.
        nanos = 0;
    }
    let micros = nanos / 1000;
    if bytes.is_empty() || (seconds == ZERO_SECONDS && micros == 0) {
        out.extend_from_slice(b"null");
        return Ok(true);
    }
    let time = Timestamp::new(seconds, micros * 1000)
        .map_err(|_| Error::Malformed)?
        .to_zoned(TimeZone::UTC)
        .datetime();
    if time.year() < 0 {
        return Err(Error::Malformed);
    }
    let (year, month, day) = (time.year(), time.month(), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    // Writing to memory does not fail.
    let _ = write!(
        out,
        "\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    );
    if precision == Precision::Micros {
        let _ = write!(out, ".{:06}", time.subsec_nanosecond() / 1000);
    }
    out.extend_from_slice(b"Z\"");
    Ok(false)
}

/// Seconds and nanoseconds of a time in RFC 3339; `None` where it is Go's zero.
pub(super) fn parse_time(
    text: &str,
    precision: Precision,
) -> Result<Option<(i64, i32)>, jiff::Error> {
    let time: Timestamp = text.parse()?;
    let (mut seconds, mut nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    nanos = match precision {
        Precision::Seconds => 0,
        Precision::Micros => nanos / 1000 * 1000,
    };
    let zero = seconds == ZERO_SECONDS && nanos == 0;
    Ok((!zero).then_some((seconds, nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::wire::put_number;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let cases = [
            (
                0,
                0,
                "\"1970-01-01T00:00:00Z\"",
                "\"1970-01-01T00:00:00.000000Z\"",
            ),
            (
                1_700_000_000,
                123_456_789,
                "\"2023-11-14T22:13:20Z\"",
                "\"2023-11-14T22:13:20.123456Z\"",
            ),
            (
                -1,
                0,
                "\"1969-12-31T23:59:59Z\"",
                "\"1969-12-31T23:59:59.000000Z\"",
            ),
            (ZERO_SECONDS, 0, "null", "null"),
        ];
        for (seconds, nanos, whole, micro) in cases {
            let mut bytes = Vec::new();
            put_number(&mut bytes, 1, i64::cast_unsigned(seconds));
            put_number(&mut bytes, 2, nanos);
            for (precision, want) in [(Precision::Seconds, whole), (Precision::Micros, micro)] {
                let mut out = Vec::new();
                write_time(&bytes, precision, &mut out).unwrap();
                assert_eq!(String::from_utf8(out).unwrap(), want);
                if want != "null" {
                    let (s, n) = parse_time(want.trim_matches('"'), precision)
                        .unwrap()
                        .unwrap();
                    assert_eq!(s, seconds);
                    assert!(n as u64 <= nanos);
                }
            }
        }
        assert!(
            write_time(
                &[8, 255, 255, 255, 255, 255, 255, 255, 127],
                Precision::Seconds,
                &mut Vec::new()
            )
            .is_err()
        );
    }
}
