//! Who one is.

use crate::output::clean;
use crate::url::BaseUrl;
use crate::view::Me;

/// A line per fact.
#[must_use]
pub fn text(me: &Me, url: &BaseUrl) -> String {
    let person = match (&me.username, &me.email) {
        (Some(name), Some(email)) if !name.is_empty() && !email.is_empty() => format!("{name} <{email}>"),
        (Some(one), _) | (_, Some(one)) => one.clone(),
        (None, None) => String::new(),
    };
    let facts = [
        ("Platform", url.to_string()),
        ("Subject", me.subject.clone()),
        ("Person", person),
        ("Issuer", me.issuer.clone()),
        ("Tenant", me.tenant.clone()),
        ("Namespace", me.namespace.clone()),
        ("Tier", me.tier.clone()),
        ("Roles", me.roles.join(", ")),
    ];
    let facts = facts.iter().filter(|(_, value)| !value.is_empty());
    facts.map(|(name, value)| format!("{name:<11}{}\n", clean(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_told() {
        let me = Me {
            tenant: "alice".into(),
            namespace: "tenant-alice".into(),
            subject: "alice".into(),
            issuer: "eventflow-dev".into(),
            roles: vec!["developer".into(), "owner".into()],
            username: Some("alice".into()),
            ..Me::default()
        };
        let expected = "Platform   http://a.example
Subject    alice
Person     alice
Issuer     eventflow-dev
Tenant     alice
Namespace  tenant-alice
Roles      developer, owner
";
        assert_eq!(text(&me, &"http://a.example".parse().unwrap()), expected);
    }
}
