//! `TIME` and its parts, in UTC.

use std::time::Duration;

/// A moment, taken apart (proleptic Gregorian calendar, UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    pub(super) year: i64,
    /// 1 to 12.
    pub(super) month: i64,
    /// 1 to 31.
    pub(super) day: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
    /// 0 (Sunday) to 6.
    pub(super) weekday: i64,
}

impl Calendar {
    pub(super) fn at(unix: Duration) -> Self {
        let seconds = i64::try_from(unix.as_secs()).unwrap_or(i64::MAX);
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        // 1970-01-01 was a Thursday.
        Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
            weekday: (days + 4) % 7,
        }
    }
}

/// Days since 1970-01-01 as year, month and day. Counted year by year: it is asked at most once a
/// transaction, and only by rules that look at the calendar.
fn civil(mut days: i64) -> (i64, i64, i64) {
    let mut year = 1970;
    while days >= length(year) && year < 9999 {
        days -= length(year);
        year += 1;
    }
    let february = if length(year) == 366 { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while month < 11 && days >= months[month] {
        days -= months[month];
        month += 1;
    }
    (year, month as i64 + 1, days + 1)
}

/// Days of a year.
fn length(year: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        let at = |seconds| Calendar::at(Duration::from_secs(seconds));
        let epoch = Calendar {
            year: 1970,
            month: 1,
            day: 1,
            hour: 0,
            minute: 0,
            second: 0,
            weekday: 4,
        };
        assert_eq!(at(0), epoch);
        let leap = Calendar {
            year: 2024,
            month: 2,
            day: 29,
            hour: 12,
            minute: 34,
            second: 56,
            weekday: 4,
        };
        assert_eq!(at(1_709_210_096), leap);
    }
}
