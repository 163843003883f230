//! The identity of a Function or Invocation: the UUID its API server gave it, as 16 bytes instead of 36 characters.

use std::fmt;
use std::str::FromStr;

/// Not a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID in lower case with hyphens")]
pub struct UidError;

/// `metadata.uid`. Sorts as its text does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(u128);

impl Uid {
    /// Of these 128 bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The 128 bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl FromStr for Uid {
    type Err = UidError;

    /// Accepts the one form that [`Uid`] prints, so that text and value are the same thing.
    fn from_str(text: &str) -> Result<Self, UidError> {
        let hyphens = [8, 13, 18, 23];
        let well_formed = text.len() == 36
            && text.bytes().enumerate().all(|(i, b)| match b {
                b'-' => hyphens.contains(&i),
                b => matches!(b, b'0'..=b'9' | b'a'..=b'f') && !hyphens.contains(&i),
            });
        if !well_formed {
            return Err(UidError);
        }
        u128::from_str_radix(&text.replace('-', ""), 16).map(Self).map_err(|_| UidError)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_printed_form_is_read() {
        let text = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
        assert_eq!(text.parse::<Uid>().unwrap().to_string(), text);
        for bad in [
            "",
            &text.to_uppercase(),
            &text.replace('-', ""),
            &text[..35],
            &format!("{text}0"),
            &text.replace("-", "+"),
        ] {
            assert_eq!(bad.parse::<Uid>(), Err(UidError), "{bad}");
        }
        assert_eq!("0a1b2c3d--e5f-6071-8293-a4b5c6d7e8f9".parse::<Uid>(), Err(UidError));
    }

    proptest! {
        #[test]
        fn reads_back_and_sorts_as_text(a: u128, b: u128) {
            let (a, b) = (Uid::from_bits(a), Uid::from_bits(b));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
