//! Points in time, as people count them.

use jiff::Timestamp;

/// How long ago that was: `5s`, `3m`, `2h`, `4d`. A time that cannot be read is given back as it is.
#[must_use]
pub fn age(then: &str, now: Timestamp) -> String {
    let Ok(then) = then.parse::<Timestamp>() else { return then.to_owned() };
    // Clocks differ; the future is now.
    match now.duration_since(then).as_secs().max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// The time to the second: `2026-11-25 08:30:00`. A time that cannot be read is given back as it is.
#[must_use]
pub fn at(time: &str) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return time.to_owned() };
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let ages = ["2026-01-01T23:59:55.5Z", "2026-01-01T23:58:00Z", "2026-01-01T00:00:00Z", "2025-12-01T00:00:00Z"];
        assert_eq!(ages.map(|then| age(then, now)), ["4s", "2m", "24h", "32d"]);
        assert_eq!(age("2026-01-03T00:00:00Z", now), "0s");
        assert_eq!(age("soon", now), "soon");
        assert_eq!(at("2026-01-01T23:59:55.5Z"), "2026-01-01 23:59:55");
    }
}
