//! Amounts of resources: `100m`, `1.5Gi`, `2e3`.
//!
//! A [`Quantity`] is exact to 10⁻⁹; what is finer is rounded away from zero. What is larger than
//! 2⁶³−1 is capped in binary format, as Kubernetes does it; in the others only what is larger than
//! about 10²⁹ is. Its display is canonical: equal amounts of the same format have one spelling.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANO: i128 = 1_000_000_000;
/// The most of the binary format.
const MAX: i128 = i64::MAX as i128 * NANO;
/// Zeros after which nothing is left of the largest factor, 2^60.
const SMALLEST: i64 = 20;
/// The most of the others.
const WIDE: i128 = i128::MAX;

/// How a quantity was written, which its display keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `m`, `k`, `M`: powers of a thousand.
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`: powers of 1024.
    BinarySi,
    /// `e3`, `E6`: powers of ten.
    DecimalExponent,
}

/// An amount. Compared by what it amounts to, whatever its format.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a string is no quantity. The wording is the one of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a number and a suffix.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The suffix is none that is known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// There is no digit.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
}

impl Quantity {
    /// Nothing, in decimal format.
    pub const ZERO: Self = Self {
        nanos: 0,
        format: Format::DecimalSi,
    };

    /// So many units.
    pub const fn new(value: i64, format: Format) -> Self {
        Self {
            nanos: value as i128 * NANO,
            format,
        }
    }

    /// So many thousandths, as CPU is counted.
    pub const fn from_milli(value: i64) -> Self {
        Self {
            nanos: value as i128 * (NANO / 1000),
            format: Format::DecimalSi,
        }
    }

    /// So many bytes.
    pub const fn from_bytes(value: i64) -> Self {
        Self::new(value, Format::BinarySi)
    }

    /// The amount in units, rounded up, within the range of the type.
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }

    /// The amount in thousandths, rounded up, within the range of the type.
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANO / 1000)
    }

    /// The amount as a float, for ratios.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Adds another amount. A zero takes the format of what is added to it.
    pub fn add(&mut self, other: &Self) {
        self.adopt_format(other);
        self.nanos = self.nanos.saturating_add(other.nanos).max(-WIDE);
    }

    /// Takes another amount away. A zero takes the format of what is taken from it.
    pub fn sub(&mut self, other: &Self) {
        self.adopt_format(other);
        self.nanos = self.nanos.saturating_sub(other.nanos).max(-WIDE);
    }

    fn adopt_format(&mut self, other: &Self) {
        if self.is_zero() {
            self.format = other.format;
        }
    }

    fn scaled(&self, unit: i128) -> i64 {
        // Rounding is away from zero, as `ScaledValue` of Kubernetes does it.
        let magnitude = self.nanos.unsigned_abs().div_ceil(unit.unsigned_abs());
        let magnitude = i64::try_from(magnitude).unwrap_or(i64::MAX);
        if self.nanos < 0 {
            -magnitude
        } else {
            magnitude
        }
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;
    fn add(mut self, other: Self) -> Self {
        Self::add(&mut self, &other);
        self
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;
    fn sub(mut self, other: Self) -> Self {
        Self::sub(&mut self, &other);
        self
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a suffix multiplies by: `base` to the power of `exponent`.
struct Suffix {
    format: Format,
    base: u32,
    exponent: i64,
}

impl Suffix {
    /// Whether it is a quantity without any digit, which is zero. Kubernetes takes those, `Mi`,
    /// `k` and even a sign, whose factor it can multiply by in 64 bits.
    fn stands_alone(&self) -> bool {
        match self.format {
            Format::BinarySi => self.exponent <= 4,
            Format::DecimalSi | Format::DecimalExponent => self.exponent >= -9,
        }
    }
}

const DECIMAL: [(&str, i64); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

fn suffix(text: &str) -> Result<Suffix, Error> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(suffix, _)| *suffix == text) {
        return Ok(Suffix {
            format: Format::DecimalSi,
            base: 10,
            exponent: *exponent,
        });
    }
    if let Some(index) = BINARY.iter().position(|suffix| *suffix == text) {
        return Ok(Suffix {
            format: Format::BinarySi,
            base: 1024,
            exponent: index as i64 + 1,
        });
    }
    let exponent = text.strip_prefix(['e', 'E']).ok_or(Error::Suffix)?;
    let exponent = exponent.parse::<i64>().map_err(|_| Error::Suffix)?;
    Ok(Suffix {
        format: Format::DecimalExponent,
        base: 10,
        exponent,
    })
}

impl FromStr for Quantity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, rest) = unsigned.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if text.is_empty() || fraction.contains('.') || !well_formed_suffix(rest) {
            return Err(Error::Format);
        }
        let suffix = suffix(rest)?;
        if number.bytes().all(|b| b == b'.') && !suffix.stands_alone() {
            return Err(Error::Numeric);
        }
        let magnitude = magnitude(whole, fraction, &suffix);
        let nanos = if negative { -magnitude } else { magnitude };
        let format = match suffix.format {
            // A fraction of a byte has no binary spelling.
            Format::BinarySi if magnitude > 0 && magnitude < NANO => Format::DecimalSi,
            format => format,
        };
        Ok(Self { nanos, format })
    }
}

fn well_formed_suffix(text: &str) -> bool {
    let digits = text.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let digits = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    digits.bytes().all(|b| b.is_ascii_digit())
}

/// The value in nanos, rounded up and capped. Digits that cannot matter are never multiplied
/// out, so that a hostile exponent or a megabyte of digits costs nothing.
fn magnitude(whole: &str, fraction: &str, suffix: &Suffix) -> i128 {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() && fraction.is_empty() {
        return 0;
    }
    let (decimal_exponent, factor) = match suffix.base {
        10 => (suffix.exponent, 1i128),
        base => (0, i128::from(base).pow(suffix.exponent as u32)),
    };
    // The number is 0.d₁d₂d₃… × 10^point nanos (before the binary factor).
    let digits: Vec<u8> = whole
        .bytes()
        .chain(fraction.bytes())
        .map(|b| b - b'0')
        .collect();
    let zeros = digits.iter().take_while(|d| **d == 0).count();
    let digits = &digits[zeros..];
    let point = (whole.len() as i64 - zeros as i64)
        .saturating_add(decimal_exponent)
        .saturating_add(9);
    if suffix.format != Format::BinarySi {
        if point > 39 {
            return WIDE; // At least 10^39 nanos.
        }
        let (kept, inexact) = truncated(digits, point.max(0) as usize, point < 0);
        return kept.saturating_add(i128::from(inexact));
    }
    if point > 25 {
        return MAX; // At least 10^25 nanos times 1024.
    }
    // Digits below a nano count too, as the factor makes them larger: from the last to the first,
    // each is a tenth of what stands before it.
    let places = usize::try_from(point).unwrap_or(0);
    let tenth = |(sum, inexact): (i128, bool), digit: u8| {
        let sum = i128::from(digit) * factor + sum;
        (sum / 10, inexact || sum % 10 != 0)
    };
    let below = digits.get(places..).unwrap_or_default();
    let below = below
        .iter()
        .rev()
        .fold((0, false), |so_far, digit| tenth(so_far, *digit));
    let zeros = point.saturating_neg().clamp(0, SMALLEST);
    let (below, inexact) = (0..zeros).fold(below, |so_far, _| tenth(so_far, 0));
    let (nanos, _) = truncated(digits, places, false);
    let product = nanos.checked_mul(factor);
    product.map_or(MAX, |product| {
        (product + below + i128::from(inexact)).min(MAX)
    })
}

/// The first `places` digits as a number (padded with zeros), and whether anything was cut off.
fn truncated(digits: &[u8], places: usize, below: bool) -> (i128, bool) {
    let mut value: i128 = 0;
    for place in 0..places {
        let digit = digits.get(place).copied().unwrap_or(0);
        value = value.saturating_mul(10).saturating_add(i128::from(digit));
    }
    let cut = digits.iter().skip(places).any(|d| *d != 0);
    (value, cut || (below && !digits.is_empty()))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos % NANO == 0;
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && whole && !small {
            let mut value = self.nanos / NANO;
            let mut power = 0;
            while power < BINARY.len() && value % 1024 == 0 {
                value /= 1024;
                power += 1;
            }
            return write!(
                f,
                "{value}{}",
                power.checked_sub(1).map_or("", |power| BINARY[power])
            );
        }
        let mut mantissa = self.nanos;
        let mut exponent = -9;
        while exponent < 18 && mantissa % 1000 == 0 {
            mantissa /= 1000;
            exponent += 3;
        }
        write!(f, "{mantissa}")?;
        match self.format {
            Format::DecimalExponent if exponent == 0 => Ok(()),
            Format::DecimalExponent => write!(f, "e{exponent}"),
            _ => {
                let suffix = DECIMAL.iter().find(|(_, power)| *power == exponent);
                f.write_str(suffix.map_or("", |(suffix, _)| suffix))
            }
        }
    }
}

impl TryFrom<&ApiQuantity> for Quantity {
    type Error = Error;

    fn try_from(quantity: &ApiQuantity) -> Result<Self, Error> {
        quantity.0.trim().parse()
    }
}

impl From<Quantity> for ApiQuantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

impl From<&Quantity> for ApiQuantity {
    fn from(quantity: &Quantity) -> Self {
        Self(quantity.to_string())
    }
}

/// Writes each quantity in its canonical form, as Kubernetes does when it stores an object.
pub fn canonicalize(list: &mut Option<BTreeMap<String, ApiQuantity>>) {
    for quantity in list.iter_mut().flat_map(BTreeMap::values_mut) {
        canonicalize_quantity(quantity);
    }
}

/// Writes a quantity in its canonical form; leaves one that is malformed to validation.
pub fn canonicalize_quantity(quantity: &mut ApiQuantity) {
    if let Ok(parsed) = Quantity::try_from(&*quantity) {
        *quantity = parsed.into();
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let quantity = ApiQuantity::deserialize(deserializer)?;
        Self::try_from(&quantity).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[path = "quantity_tests.rs"]
mod tests;
