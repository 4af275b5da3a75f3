//! Words of the command line: sizes, element types, operations, roots.

use sohu_coll::{DType, ReduceOp};

/// A number of bytes: `8`, `64K`, `1M`, `1G`, with binary units in either case.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; sizes are 8, 64K, 1M, 1G (binary units)");
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    // `parse` alone would take a sign.
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes <= SIZE_MAX)
        .ok_or_else(|| format!("{text} is more than {}G, the most this bench measures", SIZE_MAX >> 30))
}

/// The greatest size: what one host can hold several times is far below.
const SIZE_MAX: u64 = 1 << 40;

/// Seconds to fill: more than none, at most an hour.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| *s > 0.0 && *s <= 3600.0);
    seconds.ok_or_else(|| "a budget is a number of seconds, as 0.12".into())
}

/// A percentage: `5%` or `5`.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    number.filter(|p| (0.0..=1e6).contains(p)).ok_or_else(|| "a percentage is a number as 5% or 0.5%".into())
}

/// Whether calls wait for all ranks.
pub(crate) fn blocking(text: &str) -> Result<u8, String> {
    match text {
        "0" => Ok(0),
        "1" => Ok(1),
        _ => Err("only 0 and 1 are supported: there is no stream to wait for in other ways".into()),
    }
}

/// One or all of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice<T> {
    /// This one.
    One(T),
    /// Every one there is.
    All,
}

impl<T: Copy> Choice<T> {
    /// The chosen ones, of `all`.
    pub(crate) fn of(self, all: impl IntoIterator<Item = T>) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::All => all.into_iter().collect(),
        }
    }
}

/// Other spellings of element types.
const ALIASES: [(&str, DType); 20] = [
    ("i8", DType::I8),
    ("char", DType::I8),
    ("u8", DType::U8),
    ("i32", DType::I32),
    ("int", DType::I32),
    ("u32", DType::U32),
    ("i64", DType::I64),
    ("u64", DType::U64),
    ("f16", DType::F16),
    ("fp16", DType::F16),
    ("float16", DType::F16),
    ("bf16", DType::Bf16),
    ("f32", DType::F32),
    ("fp32", DType::F32),
    ("float32", DType::F32),
    ("f64", DType::F64),
    ("fp64", DType::F64),
    ("float64", DType::F64),
    ("fp8_e4m3", DType::Fp8E4m3),
    ("fp8_e5m2", DType::Fp8E5m2),
];

/// An element type by the name nccl-tests gives it, or one in use elsewhere; or `all`.
pub(crate) fn dtype(text: &str) -> Result<Choice<DType>, String> {
    let names = DType::ALL.map(|d| (d.name(), d));
    choose(text, "element type", names.into_iter(), ALIASES.into_iter())
}

/// Every operation that has a name.
pub(crate) const OPS: [ReduceOp; 6] =
    [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Min, ReduceOp::Max, ReduceOp::Avg, ReduceOp::PreMulSum];

/// An operation by its name; or `all`.
pub(crate) fn op(text: &str) -> Result<Choice<ReduceOp>, String> {
    let names = OPS.map(|o| (o.name(), o));
    choose(text, "operation", names.into_iter(), std::iter::empty())
}

/// A root; or `all`.
pub(crate) fn root(text: &str) -> Result<Choice<u32>, String> {
    match text {
        "all" => Ok(Choice::All),
        _ => text.parse().map(Choice::One).map_err(|_| "a root is the number of a rank, or all".into()),
    }
}

fn choose<T: Copy>(
    text: &str,
    kind: &str,
    names: impl Iterator<Item = (&'static str, T)> + Clone,
    aliases: impl Iterator<Item = (&'static str, T)> + Clone,
) -> Result<Choice<T>, String> {
    let word = text.to_ascii_lowercase();
    if word == "all" {
        return Ok(Choice::All);
    }
    let spellings = names.clone().chain(aliases);
    if let Some((_, found)) = spellings.clone().find(|(name, _)| *name == word) {
        return Ok(Choice::One(found));
    }
    let near = spellings.map(|(name, _)| (distance(&word, name), name)).min();
    let hint = match near {
        Some((edits, name)) if edits <= 2 => format!("did you mean {name}? "),
        _ => String::new(),
    };
    let list: Vec<&str> = names.map(|(name, _)| name).collect();
    Err(format!("{text:?} is no {kind}; {hint}there are: {}, all", list.join(", ")))
}

/// How many letters must be added, left out or changed to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(before + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("8", 8),
            ("1k", 1024),
            ("64K", 65_536),
            ("1M", 1 << 20),
            ("3m", 3 << 20),
            ("1G", 1 << 30),
            ("1024G", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_examples() {
        for text in ["", "K", "x", "-1", "+1", "1.5M", "64KB", "8 ", "1é", "99999999999999999999"] {
            assert_eq!(
                size(text),
                Err(format!("{text:?} is no size; sizes are 8, 64K, 1M, 1G (binary units)"))
            );
        }
        for text in ["1025G", "17179869184G"] {
            assert_eq!(size(text), Err(format!("{text} is more than 1024G, the most this bench measures")));
        }
    }

    #[test]
    fn percentages_may_have_their_sign() {
        for (text, value) in [("5%", 5.0), ("5", 5.0), ("0.5%", 0.5), ("0", 0.0)] {
            assert_eq!(percent(text), Ok(value), "{text}");
        }
        for text in ["", "%", "-1%", "5%%", "nan", "inf", "five"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_type_and_operation_is_found_by_its_own_name() {
        for d in DType::ALL {
            assert_eq!(dtype(d.name()), Ok(Choice::One(d)));
        }
        for o in OPS {
            assert_eq!(op(o.name()), Ok(Choice::One(o)));
        }
        assert_eq!(dtype("all").map(|c| c.of(DType::ALL).len()), Ok(12));
    }

    #[test]
    fn aliases_are_known() {
        for (text, found) in
            [("f32", DType::F32), ("FP32", DType::F32), ("bf16", DType::Bf16), ("f16", DType::F16)]
        {
            assert_eq!(dtype(text), Ok(Choice::One(found)));
        }
    }

    #[test]
    fn an_unknown_word_gets_a_suggestion_and_the_list() {
        assert_eq!(
            op("summ"),
            Err("\"summ\" is no operation; did you mean sum? there are: sum, prod, min, max, avg, mulsum, all".into())
        );
        let error = dtype("flaot").expect_err("no such type");
        assert!(
            error.starts_with("\"flaot\" is no element type; did you mean float? there are: int8, "),
            "{error}"
        );
        let error = dtype("quaternion").expect_err("no such type");
        assert!(error.starts_with("\"quaternion\" is no element type; there are: "), "{error}");
    }

    #[test]
    fn distances_count_edits() {
        for (a, b, edits) in
            [("", "", 0), ("a", "", 1), ("sum", "sum", 0), ("smu", "sum", 2), ("mx", "max", 1)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn a_root_is_a_rank_or_all() {
        assert_eq!(root("3"), Ok(Choice::One(3)));
        assert_eq!(root("all"), Ok(Choice::All));
        assert!(root("-1").is_err());
    }
}
