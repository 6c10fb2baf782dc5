//! Numbers that may be percentages, such as `maxSurge: 25%`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A string that is not a percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for IntOrString: {0:?} is not a percentage such as \"25%\"")]
pub struct Error(String);

/// The number, or the percentage of `total`, rounded up or down.
pub fn scaled_value(value: &IntOrString, total: i32, round_up: bool) -> Result<i32, Error> {
    let percent = match value {
        IntOrString::Int(number) => return Ok(*number),
        IntOrString::String(text) => percentage(text).ok_or_else(|| Error(text.clone()))?,
    };
    let product = i64::from(percent) * i64::from(total);
    let floor = product.div_euclid(100);
    let scaled = if round_up && product.rem_euclid(100) != 0 {
        floor + 1
    } else {
        floor
    };
    Ok(i32::try_from(scaled).unwrap_or(if scaled < 0 { i32::MIN } else { i32::MAX }))
}

/// The number before the percent sign of `25%`; `None` where it is something else.
pub fn percentage(text: &str) -> Option<i32> {
    let digits = text.strip_suffix('%')?;
    digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        let table = [
            (IntOrString::Int(3), 10, true, Ok(3)),
            (percent("25%"), 10, true, Ok(3)),
            (percent("25%"), 10, false, Ok(2)),
            (percent("0%"), 10, true, Ok(0)),
            (percent("100%"), 10, false, Ok(10)),
            (percent("2000000000%"), i32::MAX, false, Ok(i32::MAX)),
            (percent("25"), 10, true, Err(Error("25".into()))),
            (percent("%"), 10, true, Err(Error("%".into()))),
            (percent("-1%"), 10, true, Err(Error("-1%".into()))),
        ];
        for (value, total, round_up, want) in table {
            assert_eq!(scaled_value(&value, total, round_up), want, "{value:?}");
        }
    }
}
