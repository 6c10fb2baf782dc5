//! Schedules of CronJobs: five fields of cron, its `@` names, or `@every` with a duration.
//!
//! What is accepted, and the wording of errors, are those of the parser that Kubernetes has used
//! since CronJobs exist (robfig/cron, its standard form): Sunday is 0 and never 7, names of months
//! and days may stand for numbers, `?` is `*`.

use std::time::Duration;

/// When something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// In the minutes that all fields match.
    At(Fields),
    /// Again after each time of this length.
    Every(Duration),
}

/// The fields of a schedule; bit n of one says whether it has the value n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// 0 to 59.
    pub minutes: u64,
    /// 0 to 23.
    pub hours: u64,
    /// Days of the month, 1 to 31.
    pub days: u64,
    /// Whether any day of the month will do, so that the weekday alone decides.
    pub any_day: bool,
    /// 1 to 12.
    pub months: u64,
    /// 0 (Sunday) to 6.
    pub weekdays: u64,
    /// Whether any weekday will do, so that the day of the month alone decides.
    pub any_weekday: bool,
}

/// The values that a field may have, and names for some.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds {
    min: 0,
    max: 59,
    names: &[],
};
const HOURS: Bounds = Bounds {
    min: 0,
    max: 23,
    names: &[],
};
const DAYS: Bounds = Bounds {
    min: 1,
    max: 31,
    names: &[],
};
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAYS: Bounds = Bounds {
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        // A time zone before the fields is not read here: it has a field of its own.
        let text = match text.split_once(' ') {
            Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => {
                rest.trim()
            }
            _ => text,
        };
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[minutes, hours, days, months, weekdays] = &fields[..] else {
            return Err(format!(
                "expected exactly 5 fields, found {}: [{}]",
                fields.len(),
                fields.join(" ")
            ));
        };
        let (minutes, _) = field(minutes, &MINUTES)?;
        let (hours, _) = field(hours, &HOURS)?;
        let (days, any_day) = field(days, &DAYS)?;
        let (months, _) = field(months, &MONTHS)?;
        let (weekdays, any_weekday) = field(weekdays, &WEEKDAYS)?;
        Ok(Self::At(Fields {
            minutes,
            hours,
            days,
            any_day,
            months,
            weekdays,
            any_weekday,
        }))
    }
}

fn descriptor(text: &str) -> Result<Schedule, String> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(duration) = text.strip_prefix("@every ") else {
                return Err(format!("unrecognized descriptor: {text}"));
            };
            return every(duration).map_or_else(
                || {
                    Err(format!(
                        "failed to parse duration {text}: time: invalid duration {duration:?}"
                    ))
                },
                |duration| Ok(Schedule::Every(duration)),
            );
        }
    };
    Schedule::parse(fields)
}

/// A duration as Go writes it (`1h30m`), in whole seconds and at least one.
fn every(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let units = [
            ("ns", 1e-9),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("ms", 1e-3),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
        ];
        let tail = &rest[digits..];
        let (unit, factor) = units.iter().find(|(unit, _)| tail.starts_with(unit))?;
        seconds += number * factor;
        rest = &tail[unit.len()..];
    }
    if text.is_empty() {
        return None;
    }
    Duration::try_from_secs_f64(seconds)
        .ok()
        .map(|duration| Duration::from_secs(duration.as_secs().max(1)))
}

/// A list of ranges, as bits; and whether it is a star.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (mut bits, mut star) = (0, false);
    for expression in text.split(',').filter(|part| !part.is_empty()) {
        let (range, any) = range(expression, bounds)?;
        bits |= range;
        star |= any;
    }
    Ok((bits, star))
}

/// `*`, `5`, `1-5`, each with `/step`.
fn range(expression: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let parts: Vec<&str> = expression.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let any = matches!(ends[0], "*" | "?");
    let (low, mut high) = match ends[..] {
        _ if any => (bounds.min, bounds.max),
        [only] => {
            let value = value(only, bounds)?;
            (value, value)
        }
        [low, high] => (value(low, bounds)?, value(high, bounds)?),
        _ => return Err(format!("too many hyphens: {expression}")),
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                high = bounds.max;
            }
            number(step)?
        }
        _ => return Err(format!("too many slashes: {expression}")),
    };
    let (min, max) = (bounds.min, bounds.max);
    if low < min {
        return Err(format!(
            "beginning of range ({low}) below minimum ({min}): {expression}"
        ));
    }
    if high > max {
        return Err(format!(
            "end of range ({high}) above maximum ({max}): {expression}"
        ));
    }
    if low > high {
        return Err(format!(
            "beginning of range ({low}) beyond end of range ({high}): {expression}"
        ));
    }
    if step == 0 {
        return Err(format!(
            "step of range should be a positive number: {expression}"
        ));
    }
    let values = (low..=high).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    let bits = values.fold(0, |bits, value| bits | 1 << value);
    // A star with a step leaves days out, so both kinds of days decide.
    Ok((bits, any && step == 1))
}

fn value(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| *name == lower) {
        Some(at) => Ok(bounds.min + u32::try_from(at).unwrap_or(0)),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let parsed: i64 = text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
    })?;
    u32::try_from(parsed).map_err(|_| format!("negative number ({parsed}) not allowed: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(values: impl IntoIterator<Item = u32>) -> u64 {
        values.into_iter().fold(0, |bits, value| bits | 1 << value)
    }

    #[test]
    fn schedules() {
        let all = Fields {
            minutes: bits(0..60),
            hours: bits(0..24),
            days: bits(1..32),
            any_day: true,
            months: bits(1..13),
            weekdays: bits(0..7),
            any_weekday: true,
        };
        let table = [
            ("* * * * ?", all),
            (
                "*/15 9-17/4 * jan,MAR mon-fri",
                Fields {
                    minutes: bits([0, 15, 30, 45]),
                    hours: bits([9, 13, 17]),
                    months: bits([1, 3]),
                    weekdays: bits(1..6),
                    any_weekday: false,
                    ..all
                },
            ),
            (
                "50/4 * */2 * *",
                Fields {
                    minutes: bits([50, 54, 58]),
                    days: bits((1..32).step_by(2)),
                    any_day: false,
                    ..all
                },
            ),
            (
                "@monthly",
                Fields {
                    minutes: 1,
                    hours: 1,
                    days: 2,
                    any_day: false,
                    ..all
                },
            ),
            ("TZ=Asia/Tokyo * * * * *", all),
        ];
        for (text, want) in table {
            assert_eq!(Schedule::parse(text), Ok(Schedule::At(want)), "{text}");
        }
        let every = Schedule::Every(Duration::from_secs(5400));
        assert_eq!(Schedule::parse("@every 1h30m"), Ok(every));
    }

    #[test]
    fn what_is_none() {
        let table = [
            ("", "empty spec string"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "5-1 * * * *",
                "beginning of range (5) beyond end of range (1): 5-1",
            ),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("@never", "unrecognized descriptor: @never"),
            (
                "@every day",
                "failed to parse duration @every day: time: invalid duration \"day\"",
            ),
        ];
        for (text, want) in table {
            assert_eq!(Schedule::parse(text), Err(want.to_owned()), "{text}");
        }
    }
}
