//! CPU and memory in Kubernetes' grammar, as exact integers. Source of the grammar and of rounding up:
//! `k8s.io/apimachinery/pkg/api/resource/quantity.go`. Never uses floating point; never overflows silently.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a quantity was refused. The text is meant for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not in the grammar.
    #[error("must be a number with an optional suffix, such as 100m, 0.5, 128Mi or 1G")]
    Malformed,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// Does not fit 63 bits.
    #[error("is too large")]
    TooLarge,
}

/// A number times a power of ten times a power of two.
struct Parsed {
    mantissa: u128,
    ten: i32,
    two: u32,
}

impl Parsed {
    /// The value times `10^scale`, rounded up to an integer, as Kubernetes rounds.
    fn scaled(&self, scale: i32) -> Result<u64, QuantityError> {
        let two = 1u128.checked_shl(self.two).ok_or(QuantityError::TooLarge)?;
        let base = self.mantissa.checked_mul(two).ok_or(QuantityError::TooLarge)?;
        let exp = self.ten + scale;
        let pow = 10u128.checked_pow(exp.unsigned_abs());
        let value = match (base, pow) {
            (0, _) => 0,
            (_, Some(p)) if exp >= 0 => base.checked_mul(p).ok_or(QuantityError::TooLarge)?,
            (_, None) if exp >= 0 => return Err(QuantityError::TooLarge),
            (_, Some(p)) => base.div_ceil(p),
            (_, None) => 1,
        };
        if value > i64::MAX as u128 { Err(QuantityError::TooLarge) } else { Ok(value as u64) }
    }
}

fn parse(s: &str) -> Result<Parsed, QuantityError> {
    let (s, negative) = match s.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (s.strip_prefix('+').unwrap_or(s), false),
    };
    let number = s.len() - s.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, suffix) = s.split_at(number);
    let (int, frac) = number.split_once('.').unwrap_or((number, ""));
    if (int.is_empty() && frac.is_empty()) || frac.contains('.') {
        return Err(QuantityError::Malformed);
    }
    let frac = frac.trim_end_matches('0');
    let digits = format!("{int}{frac}");
    let digits = digits.trim_start_matches('0');
    let mantissa = match digits {
        "" => 0,
        d if d.len() > 36 => return Err(QuantityError::TooLarge),
        d => d.parse().map_err(|_| QuantityError::Malformed)?,
    };
    let (ten, two) = suffix_powers(suffix)?;
    if negative && mantissa != 0 {
        return Err(QuantityError::Negative);
    }
    let frac_len = i32::try_from(frac.len()).map_err(|_| QuantityError::TooLarge)?;
    Ok(Parsed { mantissa, ten: ten - frac_len, two })
}

/// Powers of ten and of two that a suffix stands for.
fn suffix_powers(suffix: &str) -> Result<(i32, u32), QuantityError> {
    Ok(match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => {
            let exp = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Malformed)?;
            let exp: i32 = exp.parse().map_err(|_| QuantityError::Malformed)?;
            if exp.abs() > 60 {
                return Err(QuantityError::TooLarge);
            }
            (exp, 0)
        }
    })
}

/// CPU in thousandths of a core. Parts of a thousandth are rounded up, as Kubernetes does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MilliCpu(u64);

/// Memory in bytes. Parts of a byte are rounded up, as Kubernetes does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(u64);

impl MilliCpu {
    /// That many thousandths of a core.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }
    /// Thousandths of a core.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }
}

impl Bytes {
    /// That many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }
    /// That many mebibytes (2^20 bytes).
    #[must_use]
    pub const fn from_mebibytes(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }
    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for MilliCpu {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, QuantityError> {
        parse(s)?.scaled(3).map(Self)
    }
}

impl FromStr for Bytes {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, QuantityError> {
        parse(s)?.scaled(0).map(Self)
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            m if m % 1000 == 0 => write!(f, "{}", m / 1000),
            m => write!(f, "{m}m"),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SUFFIXES: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
        let whole = SUFFIXES.into_iter().find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        match whole {
            Some((suffix, shift)) => write!(f, "{}{suffix}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<String> for MilliCpu {
    type Error = QuantityError;
    fn try_from(s: String) -> Result<Self, QuantityError> {
        s.parse()
    }
}

impl TryFrom<String> for Bytes {
    type Error = QuantityError;
    fn try_from(s: String) -> Result<Self, QuantityError> {
        s.parse()
    }
}

impl From<MilliCpu> for String {
    fn from(q: MilliCpu) -> String {
        q.to_string()
    }
}

impl From<Bytes> for String {
    fn from(q: Bytes) -> String {
        q.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_form_of_the_grammar() {
        for (text, millis) in [
            ("1", 1000),
            ("100m", 100),
            ("0.1", 100),
            (".5", 500),
            ("5.", 5000),
            ("1e3", 1_000_000),
            ("1E-3", 1),
            ("1k", 1_000_000),
            ("+2", 2000),
            ("0", 0),
            ("-0", 0),
            ("1n", 1),
            ("1500u", 2),
            ("0.0001", 1),
            ("1Ki", 1_024_000),
        ] {
            assert_eq!(text.parse(), Ok(MilliCpu(millis)), "{text}");
        }
        for (text, bytes) in [
            ("128Mi", 128 << 20),
            ("1G", 1_000_000_000),
            ("1.5Gi", 3 << 29),
            ("0.5", 1),
            ("123m", 1),
            ("1E", 1_000_000_000_000_000_000),
            ("7Ei", 7 << 60),
            ("1e9", 1_000_000_000),
            ("00012", 12),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_outside() {
        for bad in [
            "", " 1", "1 ", "m", ".", "1..2", "1.2.3", "1mi", "1MI", "1K", "0x1", "1e", "1e1.5", "١", "1,5", "NaN",
            "--1", "1Kim",
        ] {
            assert_eq!(bad.parse::<Bytes>(), Err(QuantityError::Malformed), "{bad}");
        }
        assert_eq!("-1".parse::<Bytes>(), Err(QuantityError::Negative));
        for big in ["8Ei", "1e60", "9223372036854775808", "1e99", &"9".repeat(60)] {
            assert_eq!(big.parse::<Bytes>(), Err(QuantityError::TooLarge), "{big}");
        }
        assert_eq!("9223372036854775807".parse(), Ok(Bytes(i64::MAX as u64)));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(n in 0..=i64::MAX as u64) {
            prop_assert_eq!(Bytes(n).to_string().parse(), Ok(Bytes(n)));
            prop_assert_eq!(MilliCpu(n).to_string().parse(), Ok(MilliCpu(n)));
        }

        #[test]
        fn never_panics(s in "[-+0-9.eEnumkMGTPKi]{0,50}") {
            let _ = s.parse::<Bytes>();
            let _ = s.parse::<MilliCpu>();
        }
    }
}
