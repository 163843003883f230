//! When a call is made again, and after how long: doubling waits, each of a random length up to its bound so that many
//! clients do not come back at once, or as long as the platform asks for. Pure.

use std::time::Duration;

use super::CallError;

/// Calls made at most, the first included.
const TRIES: u32 = 4;
/// Bound of the first wait; each later one is twice as long.
const FIRST: Duration = Duration::from_millis(300);
/// Longest wait that the platform may ask for; beyond it the caller is told instead.
const ASKED_MAX: Duration = Duration::from_secs(5);

/// How long to wait before the next try, if there is to be one. `chance` is between 0 and 1.
pub(super) fn pause(tries: u32, error: &CallError, chance: f64) -> Option<Duration> {
    if tries >= TRIES || !error.is_passing() {
        return None;
    }
    let bound = FIRST * 2u32.pow(tries - 1);
    let own = bound.mul_f64(0.25 + 0.75 * chance.clamp(0.0, 1.0));
    match error.retry_after() {
        Some(asked) if asked > ASKED_MAX => None,
        // Not all at the very moment that was asked for.
        Some(asked) => Some(asked.max(own) + own.mul_f64(0.5)),
        None => Some(own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> CallError {
        CallError::Unreachable { url: "http://a".parse().unwrap(), reason: String::new() }
    }

    #[test]
    fn waits_grow_and_end() {
        let waits: Vec<_> = (1..=4).map(|tries| pause(tries, &unreachable(), 1.0)).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(waits, [ms(300), ms(600), ms(1200), None]);
        assert_eq!(pause(1, &unreachable(), 0.0), ms(75));
    }

    #[test]
    fn what_will_not_pass_is_not_tried_again() {
        let late = CallError::TooLate { url: "http://a".parse().unwrap(), after: FIRST };
        assert_eq!(pause(1, &late, 0.5), None);
    }
}
