//! How people write how long: the one reading of every timeout, in variables and on command lines.

use std::time::Duration;

/// The longest time, so that deadlines stay within what clocks can hold.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads how long: a number of seconds, as in `30` and `2.5`, or a number and its unit, as in `500ms`, `2.5s`, `2m`
/// and `1h`. This is what `SOHU_COLL_TIMEOUT` holds, and what `--timeout` of the tools takes.
///
/// # Errors
/// Says what is wrong and how to write it, where the text is no such number, is 0 (or less than half a nanosecond), or is
/// more than a year.
///
/// ```
/// use sohu_coll::parse_duration;
/// use std::time::Duration;
///
/// assert_eq!(parse_duration("2.5s"), Ok(Duration::from_millis(2500)));
/// assert!(parse_duration("soon").is_err());
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let told = |what: &str| Err(format!("{what}; write 30 or 2.5 for seconds, or 500ms, 2.5s, 2m or 1h"));
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match (number.parse::<f64>(), unit.trim_start()) {
        (Ok(number), "ms") => number / 1e3,
        (Ok(number), "" | "s") => number,
        (Ok(number), "m") => number * 60.0,
        (Ok(number), "h") => number * 3600.0,
        _ => return told("is no time"),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(Duration::ZERO) => told("is no time at all, it must be more than 0"),
        Ok(time) if time <= LONGEST => Ok(time),
        _ => told("is more than a year"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_units_and_fractions() {
        for (text, millis) in [
            ("30", 30_000),
            ("2.5", 2_500),
            ("0.25", 250),
            (".5", 500),
            ("5.", 5_000),
            ("30s", 30_000),
            ("2.5s", 2_500),
            ("500ms", 500),
            ("300ms", 300),
            ("1ms", 1),
            ("2m", 120_000),
            ("1.5m", 90_000),
            ("1h", 3_600_000),
            (" 1 s ", 1_000),
            ("8760h", 365 * 24 * 3_600_000),
            ("31536000", 365 * 24 * 3_600_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration("0.000001ms"), Ok(Duration::from_nanos(1)));
    }

    #[test]
    fn what_is_no_time_is_refused_with_all_that_would_do() {
        let no_time = [
            "",
            " ",
            ".",
            "ms",
            "s",
            "soon",
            "-5",
            "-5s",
            "-0",
            "+5",
            "1e3",
            "1e-3s",
            "0x10",
            "inf",
            "NaN",
            "nan s",
            "1.2.3",
            "1,5",
            "30 parsecs",
            "30S",
            "5 m s",
            "1d",
            "1h30m",
            "30 s s",
            "\u{663}",
        ];
        let zero = ["0", "0.0", "0ms", "0h", "0.0000000001"];
        let long = ["31536001", "8761h", "99999999999999999999", "9999999999999999h"];
        let told = |text: &str| parse_duration(text).expect_err(text);
        for text in no_time {
            assert!(told(text).starts_with("is no time; "), "{text}: {}", told(text));
        }
        for text in zero {
            assert!(told(text).contains("more than 0"), "{text}: {}", told(text));
        }
        for text in long {
            assert!(told(text).contains("more than a year"), "{text}: {}", told(text));
        }
        for text in no_time.into_iter().chain(zero).chain(long) {
            for form in ["30 ", "2.5 ", "500ms", "2.5s", "2m", "1h"] {
                assert!(told(text).contains(form), "{text}: {}", told(text));
            }
        }
    }

    #[test]
    fn numbers_beyond_what_a_float_holds_are_more_than_a_year() {
        let text = "9".repeat(400);
        assert!(parse_duration(&text).expect_err("that is infinite").contains("a year"));
    }
}
