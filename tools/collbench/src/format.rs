//! nccl-tests' table, letter for letter (version 2.19.6), so that what reads its output reads ours.

use crate::geometry::Shape;
use crate::measure::{Explained, Half, Row, Strict};
use crate::stats::Stats;

/// What the table shows besides the columns that are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    /// Least, greatest, p99 and spread of single calls, after each half.
    pub(crate) per_iter: bool,
    /// What was chosen and how near the limit it comes, at the end.
    pub(crate) explain: bool,
    /// The time with reproducible results and what they cost, after each half.
    pub(crate) strict: bool,
}

/// C's `"%*.2f"` with fewer decimals, and at last an exponent, where that does not fit `width`.
pub(crate) fn number(value: f64, width: usize) -> String {
    for decimals in [2, 1, 0] {
        let text = format!("{value:width$.decimals$}");
        if text.len() <= width {
            return text;
        }
    }
    exponent(value, usize::from(width >= 7))
}

/// C's `"%.{decimals}e"`.
fn exponent(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$e}");
    match text.split_once('e') {
        Some((mantissa, power)) => {
            let (sign, digits) = power.strip_prefix('-').map_or(('+', power), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

/// C's `"%g"`: six significant digits, no trailing zeros, an exponent where the number is very large or small.
pub(crate) fn general(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}").to_lowercase();
    }
    let short = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    // The exponent after rounding to six digits decides.
    let scientific = exponent(value, 5);
    let (mantissa, power) = scientific.split_once('e').expect("the form always has an exponent");
    let power: i32 = power.parse().expect("an exponent is a number");
    if (-4..6).contains(&power) {
        short(&format!("{value:.*}", (5 - power) as usize))
    } else {
        format!("{}e{}", short(mantissa), &scientific[mantissa.len() + 1..])
    }
}

/// The three lines above the rows.
pub(crate) fn header(columns: Columns) -> String {
    let lead = |words: [&str; 5]| {
        let [a, b, c, d, e] = words;
        format!("# {a:>10}  {b:>12}  {c:>8}  {d:>6}  {e:>6}")
    };
    let half = |times: [&str; 4], single: [&str; 4], strict: [&str; 2]| {
        let [a, b, c, d] = times;
        let mut text = format!("  {a:>7}  {b:>6}  {c:>6}  {d:>6}");
        if columns.per_iter {
            let [a, b, c, d] = single;
            text += &format!("  {a:>7}  {b:>7}  {c:>7}  {d:>7}");
        }
        if columns.strict {
            let [a, b] = strict;
            text += &format!("  {a:>7}  {b:>6}");
        }
        text
    };
    let names =
        half(["time", "algbw", "busbw", "#wrong"], ["i_min", "i_max", "i_p99", "i_cv%"], ["repro", "cost"]);
    let units = half(["(us)", "(GB/s)", "(GB/s)", ""], ["(us)", "(us)", "(us)", "(%)"], ["(us)", "(x)"]);
    let places = match (columns.per_iter, columns.strict) {
        (true, false) => {
            "              out-of-place (+ per-iteration)                                in-place (+ per-iteration)"
                .to_owned()
        }
        (false, false) => "           out-of-place                       in-place          ".to_owned(),
        (_, true) => format!("{:^width$}{:^width$}", "out-of-place", "in-place", width = names.len()),
    };
    let (names, units) = (names.repeat(2), units.repeat(2));
    let ours = |words: [&str; 6]| {
        let [a, b, c, d, e, f] = words;
        if columns.explain {
            format!(" {a:>18}  {b:>8}  {c:>9}  {d:>6}  {e:>6}  {f:>5}")
        } else {
            String::new()
        }
    };
    format!(
        "#\n{}{places}\n{}{names} {}\n{}{units} {}\n",
        lead([""; 5]),
        lead(["size", "count", "type", "redop", "root"]),
        ours(["algo", "proto", "model", "%limit", "line", "state"]),
        lead(["(B)", "(elements)", "", "", ""]),
        ours(["", "", "(us)", "", "(ns)", ""]),
    )
}

/// One row.
pub(crate) fn row(row: &Row, columns: Columns) -> String {
    let mut text = lead(&row.shape);
    for place in 0..2 {
        let Some(half) = row.halves.get(place) else {
            text += &absent(columns);
            continue;
        };
        text += &body(&row.shape, half);
        if columns.per_iter {
            text += &single(&Stats::of(&half.iterations_us));
        }
        if let (true, Some(strict)) = (columns.strict, &half.strict) {
            text += &reproducible(strict);
        }
    }
    if columns.explain {
        text += &explained(row);
    }
    text + "\n"
}

fn lead(shape: &Shape) -> String {
    let (bytes, elements) = (shape.bytes(), shape.count);
    let (dtype, op, root) = (shape.dtype.name(), shape.op_name(), shape.root_number());
    format!("{bytes:>12}  {elements:>12}  {dtype:>8}  {op:>6}  {root:>6}")
}

fn body(shape: &Shape, half: &Half) -> String {
    let time = number(half.time_us, 7);
    let algbw = number(shape.algbw(half.time_us), 6);
    let busbw = number(shape.busbw(half.time_us), 6);
    let wrong = half.wrong.map_or_else(|| "N/A".into(), |wrong| general(wrong as f64));
    format!("  {time:>7}  {algbw:>6}  {busbw:>6}  {wrong:>6}")
}

/// What stands for a form that the call does not have.
fn absent(columns: Columns) -> String {
    let none = "N/A";
    let mut text = format!("  {none:>7}  {none:>6}  {none:>6}  {none:>6}");
    if columns.per_iter {
        text += &format!("  {none:>7}").repeat(4);
    }
    text
}

fn single(stats: &Stats) -> String {
    let [min, max, p99, spread] = [stats.min, stats.max, stats.p99, stats.spread_pct()].map(|v| number(v, 7));
    format!("  {min:>7}  {max:>7}  {p99:>7}  {spread:>7}")
}

/// The time with reproducible results, and how many times as long that is.
fn reproducible(strict: &Strict) -> String {
    format!("  {:>7}  {:>6}", number(strict.time_us, 7), number(strict.cost(), 6))
}

/// What was chosen for the out-of-place half, and how near the limit that came.
fn explained(row: &Row) -> String {
    let dash = |value: f64, decimals: usize| match value.is_nan() {
        true => "-".to_owned(),
        false => format!("{value:.decimals$}"),
    };
    let half = &row.halves[0];
    let Explained { algorithm, protocol, predicted_us, outstanding_max } = &half.explained;
    let bound = outstanding_max.map(|most| format!(", {most} out")).unwrap_or_default();
    let algorithm = format!("{algorithm}{bound}");
    let (limit, line) = (dash(half.limit_pct(), 0), dash(row.handover_ns(), 0));
    let (model, state) = (dash(*predicted_us, 2), row.state());
    format!("  {algorithm:>18}  {protocol:>8}  {model:>9}  {limit:>6}  {line:>6}  {state:>5}")
}

/// The lines below the rows.
pub(crate) fn footer(program: &str, wrong_rows: u64, busbw: f64) -> String {
    let verdict = if wrong_rows == 0 { "OK" } else { "FAILED" };
    format!(
        "# {:<20} : {wrong_rows} {verdict}\n# {:<20} : {} \n#\n# Collective test concluded: {program}\n#\n",
        "Out of bounds values",
        "Avg bus bandwidth",
        general(busbw)
    )
}

#[cfg(test)]
mod tests;
