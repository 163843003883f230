//! Attacks on tokens: each row of the tables is a token that must not be believed, and what it fails on.

use jsonwebtoken::{DecodingKey, EncodingKey, Header};
use serde_json::json;

use super::super::keys::{Key, KeySource};
use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn issuer(tenant_claim: TenantClaimName) -> Issuer {
    let key = |kid: Option<&str>, secret: &[u8]| Key {
        kid: kid.map(str::to_owned),
        algorithms: vec![Algorithm::HS256],
        decoding: DecodingKey::from_secret(secret),
    };
    Issuer {
        name: "https://issuer.example".to_owned(),
        audience: "eventflow".to_owned(),
        keys: KeySource::Static(vec![key(Some("new"), SECRET), key(Some("old"), b"another secret of 32 bytes......")]),
        tenant_claim,
        roles_claim: "roles".to_owned(),
    }
}

fn tokens() -> Tokens {
    Tokens::new(vec![issuer(TenantClaimName::TenantOrSubject)])
}

fn claims() -> Value {
    let now = now() as u64;
    json!({"iss": "https://issuer.example", "aud": "eventflow", "sub": "alice", "iat": now, "exp": now + 600})
}

fn b64(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token of exactly these texts, with a good signature.
fn sign(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", b64(header), b64(payload));
    let key = EncodingKey::from_secret(SECRET);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn signed(header: &Value, claims: &Value) -> String {
    sign(&header.to_string(), &claims.to_string())
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    eventflow_api::http::merge_patch(&mut claims, changes);
    claims
}

fn verify_claims(changes: Value) -> Result<Arc<Identity>, Refusal> {
    tokens().verify(&signed(&json!({"alg": "HS256"}), &with(changes)))
}

fn verify_header(header: Value) -> Result<Arc<Identity>, Refusal> {
    tokens().verify(&signed(&header, &claims()))
}

#[test]
fn a_good_token_is_believed_and_remembered() {
    let tokens = tokens();
    let token = signed(&json!({"alg": "HS256", "typ": "JWT", "kid": "new"}), &with(json!({"roles": ["owner", "x"]})));
    let first = tokens.verify(&token).unwrap();
    assert_eq!((first.subject.as_str(), first.claim.as_str()), ("alice", "alice"));
    assert_eq!(first.roles, [Role::Owner]);
    assert!(Arc::ptr_eq(&first, &tokens.verify(&token).unwrap()));
}

#[test]
fn the_header_chooses_nothing() {
    for header in [
        json!({"alg": "HS256", "crit": ["exp"]}),
        json!({"alg": "HS256", "crit": []}),
        json!({"alg": "HS256", "b64": false}),
        json!({"alg": "HS256", "jku": "https://evil.example/keys"}),
        json!({"alg": "HS256", "x5u": "https://evil.example/cert"}),
        json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}}),
        json!({"alg": "HS256", "typ": "secevent+jwt"}),
        json!({"alg": "HS256", "typ": 1}),
        json!({"alg": "HS256", "kid": 1}),
        json!({"alg": "HS256", "kid": ["new"]}),
    ] {
        assert!(matches!(verify_header(header.clone()), Err(Refusal::Header(_))), "{header}");
    }
    for alg in [json!("none"), json!("None"), json!("nOnE"), json!(""), json!(null), json!(["HS256"]), json!("hs256")] {
        assert_eq!(verify_header(json!({"alg": alg})), Err(Refusal::Algorithm), "{alg}");
    }
    // Known algorithms that no key of this issuer lists.
    for alg in ["HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA"] {
        assert_eq!(verify_header(json!({"alg": alg})), Err(Refusal::Signature), "{alg}");
    }
    for kid in ["old", "unknown", "../../dev/null", "new' OR 1=1", ""] {
        assert_eq!(verify_header(json!({"alg": "HS256", "kid": kid})), Err(Refusal::Signature), "{kid}");
    }
}

#[test]
fn claims_are_required_and_of_their_types() {
    let now = now() as i64;
    let refused = [
        (json!({"iss": null}), Refusal::Claim("iss")),
        (json!({"iss": ["https://issuer.example"]}), Refusal::Claim("iss")),
        (json!({"iss": "https://issuer.example/"}), Refusal::Issuer),
        (json!({"aud": null}), Refusal::Claim("aud")),
        (json!({"aud": {"a": "eventflow"}}), Refusal::Claim("aud")),
        (json!({"aud": ["eventflow", 1]}), Refusal::Claim("aud")),
        (json!({"aud": []}), Refusal::Audience),
        (json!({"aud": "Eventflow"}), Refusal::Audience),
        (json!({"exp": null}), Refusal::Claim("exp")),
        (json!({"exp": "9999999999"}), Refusal::Claim("exp")),
        (json!({"exp": true}), Refusal::Claim("exp")),
        (json!({"exp": -1}), Refusal::Claim("exp")),
        (json!({"exp": now - 31}), Refusal::Expired),
        (json!({"exp": 1e300}), Refusal::Lifetime),
        (json!({"exp": now + 86_500}), Refusal::Lifetime),
        (json!({"iat": null, "exp": now + 86_500}), Refusal::Lifetime),
        (json!({"iat": "now"}), Refusal::Claim("iat")),
        (json!({"iat": now + 60}), Refusal::NotYet),
        (json!({"nbf": now + 60}), Refusal::NotYet),
        (json!({"nbf": "0"}), Refusal::Claim("nbf")),
        (json!({"sub": null}), Refusal::Claim("sub")),
        (json!({"sub": ""}), Refusal::Claim("sub")),
        (json!({"sub": 7}), Refusal::Claim("sub")),
        (json!({"sub": "a\u{0}b"}), Refusal::Claim("sub")),
        (json!({"sub": "x".repeat(1025)}), Refusal::Claim("sub")),
        (json!({"tenant": ""}), Refusal::Claim("that names the tenant")),
        (json!({"tenant": ["a"]}), Refusal::Claim("that names the tenant")),
        (json!({"tenant": "a\nb"}), Refusal::Claim("that names the tenant")),
        (json!({"roles": {"owner": true}}), Refusal::Claim("that lists the roles")),
        (json!({"roles": ["owner", 1]}), Refusal::Claim("that lists the roles")),
    ];
    for (changes, refusal) in refused {
        assert_eq!(verify_claims(changes.clone()), Err(refusal), "{changes}");
    }
    for changes in
        [json!({"aud": ["other", "eventflow"]}), json!({"nbf": now}), json!({"exp": now - 5}), json!({"iat": null})]
    {
        assert!(verify_claims(changes.clone()).is_ok(), "{changes}");
    }
}

#[test]
fn the_form_is_exact() {
    let good = signed(&json!({"alg": "HS256"}), &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let none = format!("{}.{payload}.", b64(r#"{"alg":"none"}"#));
    let mut flipped = signature.to_owned();
    flipped.replace_range(0..1, if flipped.starts_with('A') { "B" } else { "A" });
    let bad = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        none,
        message.to_owned(),
        format!("{message}."),
        format!("{good}."),
        format!("{good}.x"),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{header}=.{payload}.{signature}"),
        format!("{message}.{signature}="),
        format!("{message}.{flipped}"),
        format!("{message}.{}", &signature[..signature.len() - 1]),
        format!("{message}.{}", &signature[..10]),
        format!("{header}.{}.{signature}", b64(with(json!({"sub": "bob"})).to_string())),
        format!("{}.{payload}.{signature}", b64(r#"{"alg":"HS256","x":1}"#)),
        format!("{payload}.{header}.{signature}"),
        sign("[]", &claims().to_string()),
        sign("{\"alg\":\"HS256\"}", "[]"),
        sign("{\"alg\":\"HS256\"}", "\"x\""),
        sign("{\"alg\":\"HS256\"}", "{"),
        sign("{\"alg\":\"none\",\"alg\":\"HS256\"}", &claims().to_string()),
        sign("{\"alg\":\"HS256\"}", &claims().to_string().replacen('{', "{\"sub\":\"bob\",", 1)),
    ];
    for token in bad {
        assert!(tokens().verify(&token).is_err(), "{token}");
    }
    let long = signed(&json!({"alg": "HS256"}), &with(json!({"x": "y".repeat(TOKEN_MAX)})));
    assert_eq!(tokens().verify(&long), Err(Refusal::TooLong));
}

#[test]
fn a_public_key_is_no_secret() {
    // The classic confusion: HS256 keyed with the text of the RSA or EC public key.
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let public = pair.public_key_pem();
    let key = Key {
        kid: None,
        algorithms: vec![Algorithm::ES256],
        decoding: DecodingKey::from_ec_pem(public.as_bytes()).unwrap(),
    };
    let tokens =
        Tokens::new(vec![Issuer { keys: KeySource::Static(vec![key]), ..issuer(TenantClaimName::TenantOrSubject) }]);
    let forged = EncodingKey::from_secret(public.as_bytes());
    let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &forged).unwrap();
    assert_eq!(tokens.verify(&forged), Err(Refusal::Signature));
    let real = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let real = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims(), &real).unwrap();
    assert!(tokens.verify(&real).is_ok());
}

#[test]
fn a_persons_tenant_and_a_teams_are_apart() {
    let person = verify_claims(json!({"sub": "acme"})).unwrap();
    let team = verify_claims(json!({"tenant": "acme"})).unwrap();
    assert_eq!(person.claim, team.claim);
    assert_ne!(person.tenant_issuer, team.tenant_issuer);
    let strict = Tokens::new(vec![issuer(TenantClaimName::Named("org".to_owned()))]);
    let without = signed(&json!({"alg": "HS256"}), &claims());
    assert_eq!(strict.verify(&without), Err(Refusal::Claim("that names the tenant")));
}

#[test]
fn roles_default_to_developer_only_when_absent() {
    assert_eq!(verify_claims(json!({})).unwrap().roles, [Role::Developer]);
    assert_eq!(verify_claims(json!({"roles": []})).unwrap().roles, []);
    assert_eq!(verify_claims(json!({"roles": ["admin"]})).unwrap().roles, []);
    assert_eq!(verify_claims(json!({"roles": "viewer"})).unwrap().roles, [Role::Viewer]);
}
