//! The verdict of quota admission: what is missing, who holds it, and what would fit.

use std::fmt::Write;

use eventflow_api::admission::{Admission, Amounts, Shortfall, SmallestChange};
use eventflow_api::resources::Resources;
use serde_json::Value;

use crate::output::clean;

/// Holders of quota that are named.
const HOLDERS: usize = 5;

/// A line per fact; nothing for a verdict that this program does not know.
#[must_use]
pub fn text(admission: &Value) -> String {
    let Ok(admission) = serde_json::from_value::<Admission>(admission.clone()) else { return String::new() };
    let mut text = String::new();
    // Writing to a String cannot fail.
    match admission {
        Admission::Admitted { reserved } => {
            let _ = writeln!(text, "  admitted; holds {}", amounts(&reserved));
        }
        Admission::Queued { position, shortfall, holders } => {
            let _ = writeln!(text, "  queued at place {position}");
            text.push_str(&shortfalls(&shortfall, "free"));
            for holder in holders.iter().take(HOLDERS) {
                let _ = writeln!(text, "  {} holds {}", clean(&holder.name), amounts(&holder.reserved));
            }
            if let Some(more) = holders.len().checked_sub(HOLDERS + 1) {
                let _ = writeln!(text, "  and {} more hold the rest", more + 1);
            }
        }
        Admission::Exceeds { over, smallest_change } => {
            text.push_str(&shortfalls(&over, "in the whole quota"));
            let _ = writeln!(text, "  {}", fits(&smallest_change));
        }
        #[allow(unreachable_patterns, reason = "verdicts that the platform may add")]
        _ => {}
    }
    text
}

fn shortfalls(shortfalls: &[Shortfall], whose: &str) -> String {
    let line = |s: &Shortfall| {
        format!("  {}: {} asked for, {} {whose}, {} missing\n", s.dimension, s.requested, s.available, s.missing)
    };
    shortfalls.iter().map(line).collect()
}

/// What would fit, in the words of this program's flags.
fn fits(change: &SmallestChange) -> String {
    match change {
        SmallestChange::Replicas { replicas } => format!("would fit: --replicas {replicas}"),
        SmallestChange::Resources { replicas, resources } => {
            format!("would fit: --replicas {replicas}{}", flags(resources))
        }
        SmallestChange::Quota => "no size fits: the quota itself must grow; ask an operator".to_owned(),
    }
}

fn flags(resources: &Resources) -> String {
    let flags = [
        ("cpu-request", &resources.cpu_request),
        ("memory-request", &resources.memory_request),
        ("cpu-limit", &resources.cpu_limit),
        ("memory-limit", &resources.memory_limit),
    ];
    let flags = flags.iter().filter_map(|(flag, amount)| Some(format!(" --{flag} {}", clean(amount.as_ref()?))));
    flags.collect()
}

/// `cpuRequests 2, pods 4`.
#[must_use]
pub fn amounts(amounts: &Amounts) -> String {
    if amounts.is_empty() {
        return "nothing".to_owned();
    }
    amounts.iter().map(|(dimension, amount)| format!("{dimension} {}", clean(amount))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_numbers_are_told() {
        let over = json!({"verdict": "exceeds",
            "over": [{"dimension": "cpuRequests", "requested": "12", "available": "10", "missing": "2"}],
            "smallestChange": {"change": "resources", "replicas": 1, "resources": {"cpuRequest": "10", "cpuLimit": "20"}}});
        let expected = "  cpuRequests: 12 asked for, 10 in the whole quota, 2 missing
  would fit: --replicas 1 --cpu-request 10 --cpu-limit 20
";
        assert_eq!(text(&over), expected);
        let holder = |n: usize| json!({"name": format!("f{n}"), "reserved": {"pods": "1"}});
        let queued = json!({"verdict": "queued", "position": 2,
            "shortfall": [{"dimension": "pods", "requested": "3", "available": "1", "missing": "2"}],
            "holders": (1..=7).map(holder).collect::<Vec<_>>()});
        let expected = "  queued at place 2
  pods: 3 asked for, 1 free, 2 missing
  f1 holds pods 1
  f2 holds pods 1
  f3 holds pods 1
  f4 holds pods 1
  f5 holds pods 1
  and 2 more hold the rest
";
        assert_eq!(text(&queued), expected);
        assert_eq!(text(&json!({"verdict": "admitted", "reserved": {}})), "  admitted; holds nothing\n");
        assert_eq!(text(&json!({"verdict": "of a later version"})), "");
    }
}
