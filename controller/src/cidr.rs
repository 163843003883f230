//! Blocks of IP addresses: `10.0.0.0/8`, `::/0`, or one address. Never resolves a name.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Why a block was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a block of addresses such as 10.0.0.0/8 or fd00::/8")]
pub struct CidrError;

/// A block of addresses; the bits after the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The block that holds this one address.
    #[must_use]
    pub fn single(address: IpAddr) -> Self {
        Self { network: address, prefix: width(address) }
    }

    /// Whether every address of `other` is in this block.
    #[must_use]
    pub fn contains(&self, other: &Cidr) -> bool {
        self.network.is_ipv4() == other.network.is_ipv4()
            && self.prefix <= other.prefix
            && masked(other.network, self.prefix) == self.network
    }
}

/// Bits of an address of this family.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with everything after `prefix` bits cleared.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((u32::from(a) & mask).into())
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((u128::from(a) & mask).into())
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(s: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match s.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (s, None),
        };
        let address: IpAddr = address.parse().map_err(|_| CidrError)?;
        let prefix = match prefix {
            None => width(address),
            Some(p) if p.bytes().all(|b| b.is_ascii_digit()) => p.parse().map_err(|_| CidrError)?,
            Some(_) => return Err(CidrError),
        };
        if prefix > width(address) {
            return Err(CidrError);
        }
        Ok(Self { network: masked(address, prefix), prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cidr(s: &str) -> Cidr {
        s.parse().unwrap()
    }

    #[test]
    fn reads_and_writes_blocks() {
        for (text, canonical) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("1.2.3.4", "1.2.3.4/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00:ec2::254", "fd00:ec2::254/128"),
            ("::1/0", "::/0"),
        ] {
            assert_eq!(cidr(text).to_string(), canonical);
        }
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "x/8", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_block_holds_its_parts_and_no_other_family() {
        assert!(cidr("0.0.0.0/0").contains(&cidr("169.254.169.254")));
        assert!(cidr("10.0.0.0/8").contains(&cidr("10.0.0.0/8")));
        assert!(!cidr("10.0.0.0/9").contains(&cidr("10.0.0.0/8")));
        assert!(!cidr("10.0.0.0/8").contains(&cidr("11.0.0.0/9")));
        assert!(!cidr("::/0").contains(&cidr("10.0.0.0/8")));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bits: u128, v4: bool, prefix in 0u8..=128) {
            let address: IpAddr = if v4 { IpAddr::V4((bits as u32).into()) } else { IpAddr::V6(bits.into()) };
            let block = cidr(&format!("{address}/{}", prefix.min(width(address))));
            prop_assert_eq!(cidr(&block.to_string()), block);
            prop_assert!(block.contains(&Cidr::single(address)));
        }
    }
}
