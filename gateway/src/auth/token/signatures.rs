//! Real signatures by real keys of every family, read from the files an operator would write. The keys are drawn here.

use std::path::PathBuf;
use std::sync::LazyLock;

use jsonwebtoken::EncodingKey;
use rcgen::{KeyPair, SignatureAlgorithm};
use serde_json::json;

use super::super::keys;
use super::*;

/// A key pair of one family.
struct Pair {
    public_pem: String,
    public_der: Vec<u8>,
    signing: EncodingKey,
    /// What it can sign.
    algorithms: &'static [&'static str],
}

impl Pair {
    fn draw(kind: &'static SignatureAlgorithm, algorithms: &'static [&'static str]) -> Self {
        let pair = KeyPair::generate_for(kind).unwrap();
        let private = pair.serialize_pem();
        let signing = match algorithms[0] {
            "EdDSA" => EncodingKey::from_ed_pem(private.as_bytes()),
            "RS256" => EncodingKey::from_rsa_pem(private.as_bytes()),
            _ => EncodingKey::from_ec_pem(private.as_bytes()),
        };
        let public_pem = pair.public_key_pem();
        Self {
            public_der: rcgen::PublicKeyData::subject_public_key_info(&pair),
            public_pem,
            signing: signing.unwrap(),
            algorithms,
        }
    }

    fn all() -> Vec<Self> {
        vec![
            Self::draw(&rcgen::PKCS_RSA_SHA256, &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
            Self::draw(&rcgen::PKCS_ECDSA_P256_SHA256, &["ES256"]),
            Self::draw(&rcgen::PKCS_ECDSA_P384_SHA384, &["ES384"]),
            Self::draw(&rcgen::PKCS_ED25519, &["EdDSA"]),
        ]
    }

    /// Tokens that are verified by this key alone, with this algorithm alone.
    fn trusted_for(&self, algorithm: &str) -> Tokens {
        let folder = std::env::temp_dir().join(format!("eventflow-signatures-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let folder = Folder(folder);
        std::fs::write(folder.0.join("key.pem"), &self.public_pem).unwrap();
        let key = json!({"kid": "k", "algorithms": [algorithm], "file": "key.pem"});
        let issuers = json!([{"issuer": "https://issuer.example", "audience": "eventflow", "keys": [key]}]);
        std::fs::write(folder.0.join("issuers.json"), issuers.to_string()).unwrap();
        Tokens::new(keys::load(&folder.0.join("issuers.json")).unwrap())
    }
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two pairs of each family: drawing RSA keys takes a while.
static PAIRS: LazyLock<(Vec<Pair>, Vec<Pair>)> = LazyLock::new(|| (Pair::all(), Pair::all()));

fn b64(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn payload() -> String {
    let now = now() as u64;
    json!({"iss": "https://issuer.example", "aud": "eventflow", "sub": "alice", "iat": now, "exp": now + 600})
        .to_string()
}

/// The header and payload as they are signed.
fn message(header: &str, payload: &str) -> String {
    format!("{}.{}", b64(header), b64(payload))
}

fn sign(message: &str, key: &EncodingKey, algorithm: &str) -> String {
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm.parse().unwrap()).unwrap();
    format!("{message}.{signature}")
}

fn header(algorithm: &str) -> String {
    json!({"alg": algorithm, "typ": "JWT", "kid": "k"}).to_string()
}

#[test]
fn each_algorithm_verifies_its_own_signatures() {
    for pair in &PAIRS.0 {
        for algorithm in pair.algorithms {
            let token = sign(&message(&header(algorithm), &payload()), &pair.signing, algorithm);
            assert_eq!(pair.trusted_for(algorithm).verify(&token).unwrap().subject, "alice", "{algorithm}");
        }
    }
}

#[test]
fn another_key_or_algorithm_does_not() {
    for (pair, stranger) in PAIRS.0.iter().zip(&PAIRS.1) {
        for algorithm in pair.algorithms {
            let tokens = pair.trusted_for(algorithm);
            let forged = sign(&message(&header(algorithm), &payload()), &stranger.signing, algorithm);
            assert_eq!(tokens.verify(&forged), Err(Refusal::Signature), "{algorithm} by a stranger");
            // The same key with another algorithm, said truly and not.
            for other in pair.algorithms.iter().filter(|other| *other != algorithm) {
                let honest = sign(&message(&header(other), &payload()), &pair.signing, other);
                assert_eq!(tokens.verify(&honest), Err(Refusal::Signature), "{other} where {algorithm} is listed");
                let lying = sign(&message(&header(algorithm), &payload()), &pair.signing, other);
                assert_eq!(tokens.verify(&lying), Err(Refusal::Signature), "{other} called {algorithm}");
            }
            // Good signatures of other families.
            for other in PAIRS.0.iter().filter(|other| other.algorithms != pair.algorithms) {
                for theirs in other.algorithms {
                    let token = sign(&message(&header(theirs), &payload()), &other.signing, theirs);
                    assert_eq!(tokens.verify(&token), Err(Refusal::Signature), "{theirs} where {algorithm} is listed");
                }
            }
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    for pair in &PAIRS.0 {
        let tokens = pair.trusted_for(pair.algorithms[0]);
        let pem = pair.public_pem.as_bytes();
        for secret in [pem, pem.trim_ascii_end(), &pair.public_der, b""] {
            for algorithm in ["HS256", "HS384", "HS512"] {
                let forged =
                    sign(&message(&header(algorithm), &payload()), &EncodingKey::from_secret(secret), algorithm);
                assert_eq!(tokens.verify(&forged), Err(Refusal::Signature), "{algorithm}");
            }
        }
    }
}

#[test]
fn a_signature_is_there_whole_and_of_this_very_text() {
    for pair in &PAIRS.0 {
        for algorithm in pair.algorithms {
            let tokens = pair.trusted_for(algorithm);
            let token = sign(&message(&header(algorithm), &payload()), &pair.signing, algorithm);
            let (text, signature) = token.rsplit_once('.').unwrap();
            let bytes = decode(signature).unwrap();
            let mut flipped = bytes.clone();
            *flipped.last_mut().unwrap() ^= 1;
            let padded = [bytes.as_slice(), &[0]].concat();
            let none = message(&json!({"alg": "none"}).to_string(), &payload());
            for (what, forged) in [
                ("none", format!("{none}.")),
                ("none with a signature", format!("{none}.{signature}")),
                ("no signature", format!("{text}.")),
                ("zeros", format!("{text}.{}", b64(vec![0; bytes.len()]))),
                ("a flipped bit", format!("{text}.{}", b64(flipped))),
                ("a byte less", format!("{text}.{}", b64(&bytes[..bytes.len() - 1]))),
                ("a byte more", format!("{text}.{}", b64(padded))),
                ("the form of certificates", format!("{text}.{}", b64(der(&bytes)))),
                ("padding", format!("{token}=")),
                ("another payload", {
                    let bob = payload().replace("alice", "bob");
                    format!("{}.{signature}", message(&header(algorithm), &bob))
                }),
            ] {
                assert!(tokens.verify(&forged).is_err(), "{algorithm}: {what}");
            }
            assert!(tokens.verify(&token).is_ok());
        }
    }
}

#[test]
fn a_good_signature_does_not_excuse_the_rest() {
    for pair in &PAIRS.0 {
        let algorithm = pair.algorithms[0];
        let tokens = pair.trusted_for(algorithm);
        let verify =
            |header: &str, payload: &str| tokens.verify(&sign(&message(header, payload), &pair.signing, algorithm));
        for extra in
            [r#""crit":["exp"]"#, r#""b64":false"#, r#""jku":"https://evil.example""#, r#""x5c":["a"]"#, r#""jwk":{}"#]
        {
            let header = header(algorithm).replacen('{', &format!("{{{extra},"), 1);
            assert!(matches!(verify(&header, &payload()), Err(Refusal::Header(_))), "{algorithm} {extra}");
        }
        let twice = payload().replacen('{', "{\"sub\":\"bob\",", 1);
        assert_eq!(verify(&header(algorithm), &twice), Err(Refusal::Json("the payload")), "{algorithm}");
        let twice = header(algorithm).replacen('{', "{\"alg\":\"none\",", 1);
        assert_eq!(verify(&twice, &payload()), Err(Refusal::Json("the header")), "{algorithm}");
        let other = header(algorithm).replace("\"k\"", "\"other\"");
        assert_eq!(verify(&other, &payload()), Err(Refusal::Signature), "{algorithm}: a kid that no key has");
        let late = payload().replace("\"exp\":1", "\"exp\":0.1");
        assert_eq!(verify(&header(algorithm), &late), Err(Refusal::Expired), "{algorithm}");
    }
}

/// Two halves as an ASN.1 sequence of integers: how certificates write ECDSA signatures, and JWS does not.
fn der(signature: &[u8]) -> Vec<u8> {
    let integer = |half: &[u8]| {
        let digits: Vec<u8> = std::iter::once(0).chain(half.iter().copied()).collect();
        let zeros = digits.windows(2).take_while(|pair| pair[0] == 0 && pair[1] < 0x80).count();
        [&[2, u8::try_from(digits.len() - zeros).unwrap_or(0)], &digits[zeros..]].concat()
    };
    let (r, s) = signature.split_at(signature.len() / 2);
    let both = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(both.len()).unwrap_or(0)], both.as_slice()].concat()
}
