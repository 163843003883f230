//! A ledger as one compact line: `v1.` and base64url of varints and 16-byte uids, ending in a checksum. About 47
//! bytes per reservation, because the API server charges a status of a thousand fields ten times what it charges
//! one long text. Stable: what any released version wrote is read for ever; a change of form gets a new number.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use eventflow_api::admission::Dimension;

use crate::ledger::{Ledger, Reservation};
use crate::uid::Uid;
use crate::vector::{AMOUNT_MAX, Vector, VectorError};

const PREFIX: &str = "v1.";
/// Length of the checksum that ends the bytes.
const CHECKSUM: usize = 8;

/// Why a text is not a ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackedError {
    /// Not a form this version knows.
    #[error("not a ledger of a known version (v1)")]
    Version,
    /// Not base64url without padding.
    #[error("not base64url")]
    Base64(#[source] data_encoding::DecodeError),
    /// Cut short, or changed by hand.
    #[error("the checksum is wrong")]
    Checksum,
    /// Ends within a field.
    #[error("ends too early")]
    Short,
    /// Bytes follow the last reservation.
    #[error("something follows the last reservation")]
    Trailing,
    /// A number is not in its shortest form, or over 63 bits.
    #[error("a number is malformed")]
    Number,
    /// Reservations are not in strictly ascending order of uid.
    #[error("reservations are not in order")]
    Order,
    /// The reservations add up to more than can be.
    #[error("the sum is impossible")]
    Sum(#[from] VectorError),
}

/// The ledger as text. Equal ledgers give equal texts.
#[must_use]
pub fn encode(ledger: &Ledger) -> String {
    let mut bytes = Vec::with_capacity(64 + 40 * ledger.reservations().len());
    put_number(&mut bytes, ledger.epoch());
    put_number(&mut bytes, ledger.seq());
    put_vector(&mut bytes, ledger.hard());
    put_number(&mut bytes, ledger.reservations().len() as u64);
    for (uid, reservation) in ledger.reservations() {
        bytes.extend(uid.bits().to_be_bytes());
        put_number(&mut bytes, reservation.generation);
        put_vector(&mut bytes, &reservation.vector);
    }
    let checksum = checksum(&bytes);
    bytes.extend(checksum);
    format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
}

/// Reads what [`encode`] wrote, and nothing else.
pub fn decode(text: &str) -> Result<Ledger, PackedError> {
    let body = text.strip_prefix(PREFIX).ok_or(PackedError::Version)?;
    let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(PackedError::Base64)?;
    let (bytes, end) = bytes.split_at_checked(bytes.len().wrapping_sub(CHECKSUM)).ok_or(PackedError::Short)?;
    if end != checksum(bytes) {
        return Err(PackedError::Checksum);
    }
    let mut reader = Reader(bytes);
    let (epoch, seq, hard) = (reader.number()?, reader.number()?, reader.vector()?);
    let mut reservations = BTreeMap::new();
    for _ in 0..reader.number()? {
        let uid = Uid::from_bits(u128::from_be_bytes(reader.array()?));
        let reservation = Reservation { generation: reader.number()?, vector: reader.vector()? };
        if reservations.last_key_value().is_some_and(|(last, _)| *last >= uid) {
            return Err(PackedError::Order);
        }
        reservations.insert(uid, reservation);
    }
    if !reader.0.is_empty() {
        return Err(PackedError::Trailing);
    }
    Ok(Ledger::from_parts(hard, reservations, epoch, seq)?)
}

fn put_vector(bytes: &mut Vec<u8>, vector: &Vector) {
    Dimension::ALL.iter().for_each(|d| put_number(bytes, vector.get(*d)));
}

/// Seven bits a byte, least first, the high bit set on all but the last (LEB128).
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number as u8) | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// FNV-1a: finds cut and edited texts; it is no protection against malice, which the API server's rights are.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let hash =
        bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3));
    hash.to_be_bytes()
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], PackedError> {
        let (first, rest) = self.0.split_first_chunk().ok_or(PackedError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u64, PackedError> {
        let mut number = 0u64;
        for shift in (0..63).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let shortest = byte != 0 || shift == 0;
                return if shortest && number <= AMOUNT_MAX { Ok(number) } else { Err(PackedError::Number) };
            }
        }
        Err(PackedError::Number)
    }

    fn vector(&mut self) -> Result<Vector, PackedError> {
        let mut fault = None;
        let vector = Vector::from_fn(|_| match self.number() {
            Ok(number) => number,
            Err(error) => {
                fault.get_or_insert(error);
                0
            }
        });
        fault.map_or(Ok(vector), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::{steps, take};
    use crate::vector::tests::vectors;
    use proptest::prelude::*;

    fn ledgers() -> impl Strategy<Value = Ledger> {
        let entry = (any::<u128>(), 0..=AMOUNT_MAX, vectors(AMOUNT_MAX / 64));
        (vectors(AMOUNT_MAX), prop::collection::vec(entry, 0..50), 0..=AMOUNT_MAX, 0..=AMOUNT_MAX).prop_map(
            |(hard, entries, epoch, seq)| {
                let entries = entries
                    .into_iter()
                    .map(|(n, generation, vector)| (Uid::from_bits(n), Reservation { vector, generation }));
                Ledger::from_parts(hard, entries.collect(), epoch, seq).unwrap()
            },
        )
    }

    fn packed(bytes: &[u8]) -> String {
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&[bytes, &checksum(bytes)].concat()))
    }

    #[test]
    fn the_form_is_stable() {
        let vector = Vector { cpu_requests: 300, memory_requests: 128 << 20, pods: 3, functions: 1, ..Vector::ZERO };
        let uid = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9".parse().unwrap();
        let ledger =
            Ledger::from_parts(vector, BTreeMap::from([(uid, Reservation { vector, generation: 7 })]), 2, 9).unwrap();
        let text = "v1.AgmsAoCAgEAAAAMAAQEKGyw9Tl9gcYKTpLXG1-j5B6wCgICAQAAAAwAB82_Ha5-Oe6g";
        assert_eq!(encode(&ledger), text);
        assert_eq!(decode(text).unwrap(), ledger);
    }

    #[test]
    fn a_thousand_entries_stay_small() {
        let entry = |n: u128| {
            let vector = Vector {
                cpu_requests: 12_500,
                memory_requests: 12 << 30,
                cpu_limits: 50_000,
                memory_limits: 48 << 30,
                pods: 101,
                pvcs: 0,
                functions: 1,
            };
            // Spread as random uids are, or a compressing API server would flatter us.
            (
                Uid::from_bits(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)),
                Reservation { vector, generation: 150 },
            )
        };
        let ledger = Ledger::from_parts(Vector::ZERO, (1..=1000).map(entry).collect(), 1, 1_000_000).unwrap();
        let size = encode(&ledger).len();
        println!("1,000 reservations take {size} bytes");
        assert!(size <= 60_000, "{size}");
    }

    #[test]
    fn malformed_texts_have_typed_errors() {
        let empty = || [vec![1, 0], vec![0; 7]].concat();
        let entry = |n: u8| [vec![0; 15], vec![n, 1], vec![0; 7]].concat();
        let with = |count: u8, entries: &[Vec<u8>]| packed(&[empty(), vec![count], entries.concat()].concat());
        assert!(decode(&with(2, &[entry(1), entry(2)])).is_ok());
        assert_eq!(decode(&with(2, &[entry(2), entry(1)])), Err(PackedError::Order));
        assert_eq!(decode(&with(2, &[entry(1), entry(1)])), Err(PackedError::Order));
        assert_eq!(decode(&with(2, &[entry(1)])), Err(PackedError::Short));
        assert_eq!(decode(&with(0, &[entry(1)])), Err(PackedError::Trailing));
        assert_eq!(decode(&packed(&[0x80, 0x00])), Err(PackedError::Number));
        assert_eq!(decode(&packed(&[0xff; 20])), Err(PackedError::Number));
        let large = [vec![0; 15], vec![1, 1], vec![0xff; 8], vec![0x7f], vec![0; 6]].concat();
        let larger = [vec![0; 15], vec![2, 1], vec![0xff; 8], vec![0x7f], vec![0; 6]].concat();
        assert_eq!(
            decode(&with(2, &[large, larger])),
            Err(PackedError::Sum(VectorError::TooLarge(Dimension::CpuRequests)))
        );
        for text in ["", "v2.AAAA", "AAAA", "V1."] {
            assert_eq!(decode(text), Err(PackedError::Version), "{text}");
        }
        assert_eq!(decode("v1."), Err(PackedError::Short));
        assert_eq!(decode("v1.AAAA"), Err(PackedError::Short));
        assert!(matches!(decode("v1.A+/="), Err(PackedError::Base64(_))));
        // A claimed count costs nothing until its bytes are there.
        assert_eq!(decode(&packed(&[empty(), vec![0xff; 8], vec![0x7f]].concat())), Err(PackedError::Short));
    }

    proptest! {
        #[test]
        fn what_is_packed_unpacks(ledger in ledgers()) {
            prop_assert_eq!(decode(&encode(&ledger)), Ok(ledger));
        }

        #[test]
        fn whatever_the_transitions_make_unpacks(hard in vectors(20), history in prop::collection::vec(steps(), 0..20)) {
            let mut ledger = Ledger::new(hard, 1);
            for step in &history {
                ledger = take(&ledger, step).unwrap_or(ledger);
                prop_assert_eq!(decode(&encode(&ledger)), Ok(ledger.clone()));
            }
        }

        #[test]
        fn one_changed_or_missing_character_is_found(ledger in ledgers(), at: prop::sample::Index, other in "[-_A-Za-z0-9=. ]") {
            let text = encode(&ledger);
            let at = at.index(text.len());
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            prop_assert!(changed == text || decode(&changed).is_err());
            let shorter = format!("{}{}", &text[..at], &text[at + 1..]);
            prop_assert!(decode(&shorter).is_err());
            prop_assert!(decode(&text[..at]).is_err());
        }

        #[test]
        fn random_bytes_never_panic_and_never_read_as_two_things(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = packed(&bytes);
            if let Ok(ledger) = decode(&text) {
                prop_assert_eq!(encode(&ledger), text);
            }
        }
    }
}
