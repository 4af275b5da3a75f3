//! The tuning file: a table that says which algorithm does which calls.
//!
//! A line has six columns, and settings after them: `all_reduce 2..=4 0..64K float private one_shot slice=32K`. They are the
//! collective, the number of ranks, the bytes of `count` elements (as the collective counts them), the element type, `registered` or
//! `private` buffers, and the algorithm; `*` stands for any but the algorithm. `2..4` is 2 and 3, `2..=4` is 2 to 4, `64K..` has no end.
//! What follows a `#` is a comment. The first line that fits a call decides.
//!
//! Invariant: a file is bounded, and read to its end before any of it counts.

use crate::wish;
use sohu_coll_core::{Collective, DType};
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

/// The longest file, in bytes: some ten thousand lines.
const FILE_MAX: u64 = 1 << 20;

/// Slices that a line may ask for, in bytes: a shorter one costs more hand-overs than it saves, and of a longer one a link
/// need not have room for all.
const SLICES: RangeInclusive<u64> = 4 << 10..=256 << 10;

const COLUMNS: &str = "collective, ranks, bytes, type, registered|private|*, algorithm";

/// A table of choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tuning {
    /// What the file is called, for errors.
    name: String,
    lines: Vec<Line>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    number: usize,
    collective: Option<Collective>,
    ranks: Span,
    bytes: Span,
    dtype: Option<DType>,
    registered: Option<bool>,
    /// The algorithm that is to be chosen.
    pub(crate) algorithm: &'static str,
    /// The slice, where the line gives one.
    pub(crate) slice: Option<usize>,
}

/// Numbers from the first to the last, both included; none where the last comes before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span(u64, u64);

impl Span {
    const ALL: Self = Self(0, u64::MAX);

    fn has(self, number: u64) -> bool {
        (self.0..=self.1).contains(&number)
    }
}

/// A call, as far as a line looks at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought {
    pub(crate) collective: Collective,
    pub(crate) size: u32,
    pub(crate) bytes: usize,
    pub(crate) dtype: DType,
    pub(crate) registered: bool,
}

impl Tuning {
    /// Reads a file.
    ///
    /// # Errors
    /// Says why it can not be read, or which line and column makes no sense, and what would.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let mut text = String::new();
        let file = File::open(path).map_err(|error| format!("can not be opened: {error}"))?;
        let read = file.take(FILE_MAX + 1).read_to_string(&mut text);
        read.map_err(|error| format!("can not be read: {error}"))?;
        if text.len() as u64 > FILE_MAX {
            return Err(format!("is longer than {FILE_MAX} bytes"));
        }
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads the text of the file `name`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let code = line.split('#').next().unwrap_or_default();
            let words = words(code);
            if !words.is_empty() {
                let parsed = Line::parse(number, &words);
                lines.push(parsed.map_err(|(at, reason)| format!("line {number}, column {at}: {reason}"))?);
            }
        }
        Ok(Self { name: name.into(), lines })
    }

    /// The first line that fits a call, of those whose algorithm may be chosen.
    pub(crate) fn find(&self, call: &Sought, may: impl Fn(&str) -> bool) -> Option<&Line> {
        self.lines.iter().find(|line| line.fits(call) && may(line.algorithm))
    }

    /// What an error calls the choice of a line.
    pub(crate) fn tell(&self, line: &Line) -> String {
        format!("{} (line {} of {})", line.algorithm, line.number, self.name)
    }
}

impl Line {
    fn parse(number: usize, words: &[(usize, &str)]) -> Result<Self, (usize, String)> {
        let [collective, ranks, bytes, dtype, buffers, algorithm, settings @ ..] = words else {
            let (at, last) = words[words.len() - 1];
            let columns = words.len();
            let reason = format!("{columns} columns, not 6 ({COLUMNS})");
            return Err((at + last.chars().count(), reason));
        };
        let any = |word: &str| word == "*";
        let mut slice = None;
        for &(at, setting) in settings {
            slice = Some(slice_of(setting).map_err(|reason| (at, reason))?);
        }
        Ok(Self {
            number,
            collective: parse(collective, |word| (!any(word)).then(|| wish::collective(word)).transpose())?,
            ranks: parse(ranks, |word| span(word, "2, 2..=8 or *"))?,
            bytes: parse(bytes, |word| span(word, "64K, 0..64K, 1M.. or *"))?,
            dtype: parse(dtype, |word| (!any(word)).then(|| dtype_of(word)).transpose())?,
            registered: parse(buffers, |word| match word {
                "registered" => Ok(Some(true)),
                "private" => Ok(Some(false)),
                "*" => Ok(None),
                _ => Err(format!("{word:?} is neither registered nor private nor *")),
            })?,
            algorithm: parse(algorithm, wish::algorithm)?,
            slice,
        })
    }

    fn fits(&self, call: &Sought) -> bool {
        self.collective.is_none_or(|collective| collective == call.collective)
            && self.ranks.has(u64::from(call.size))
            && self.bytes.has(call.bytes as u64)
            && self.dtype.is_none_or(|dtype| dtype == call.dtype)
            && self.registered.is_none_or(|registered| registered == call.registered)
    }
}

/// The words of a line, each with its column, which counts characters from 1.
fn words(line: &str) -> Vec<(usize, &str)> {
    let words = line.split_whitespace();
    let offset = |word: &str| word.as_ptr().addr() - line.as_ptr().addr();
    words.map(|word| (line[..offset(word)].chars().count() + 1, word)).collect()
}

/// What a word means, or where and why it means nothing.
fn parse<T>(word: &(usize, &str), meaning: impl Fn(&str) -> Result<T, String>) -> Result<T, (usize, String)> {
    meaning(word.1).map_err(|reason| (word.0, reason))
}

fn dtype_of(word: &str) -> Result<DType, String> {
    DType::ALL.into_iter().find(|dtype| dtype.name() == word).ok_or_else(|| {
        let known = DType::ALL.map(DType::name).join(", ");
        format!("{word:?} is no element type; there are {known}, *")
    })
}

/// `4`, `2..8` (without the 8), `2..=8`, `64K..`, `..64K`, `*`.
fn span(word: &str, examples: &str) -> Result<Span, String> {
    let bad = || format!("{word:?} is no range; write for example {examples}");
    if word == "*" {
        return Ok(Span::ALL);
    }
    let Some((first, last)) = word.split_once("..") else {
        return number(word).map(|one| Span(one, one)).ok_or_else(bad);
    };
    let first = if first.is_empty() { Some(0) } else { number(first) };
    let last = match (last.strip_prefix('='), last) {
        (Some(last), _) => number(last),
        (None, "") => Some(u64::MAX),
        (None, end) => number(end).and_then(|end| end.checked_sub(1)),
    };
    match (first, last) {
        (Some(first), Some(last)) if first <= last => Ok(Span(first, last)),
        (Some(_), Some(_)) => Err(format!("{word:?} is an empty range")),
        _ => Err(bad()),
    }
}

/// `1048576`, `64K`, `1M`, `1G`.
fn number(word: &str) -> Option<u64> {
    let (digits, shift) = match word.char_indices().last()? {
        (at, 'K' | 'k') => (&word[..at], 10),
        (at, 'M' | 'm') => (&word[..at], 20),
        (at, 'G' | 'g') => (&word[..at], 30),
        _ => (word, 0),
    };
    // `parse` alone would take a sign.
    let plain = digits.chars().all(|digit| digit.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| plain)?.checked_mul(1 << shift)
}

fn slice_of(setting: &str) -> Result<usize, String> {
    let Some(slice) = setting.strip_prefix("slice=") else {
        return Err(format!("{setting:?} is no setting; there is slice=BYTES"));
    };
    let good = number(slice).filter(|bytes| SLICES.contains(bytes) && bytes.is_multiple_of(64));
    good.map(|bytes| bytes as usize).ok_or_else(|| {
        let (least, most) = (SLICES.start() >> 10, SLICES.end() >> 10);
        format!("{slice:?} is no slice; it is a multiple of 64 from {least}K to {most}K")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sought(collective: Collective, size: u32, bytes: usize) -> Sought {
        Sought { collective, size, bytes, dtype: DType::F32, registered: false }
    }

    fn chosen(text: &str, call: &Sought) -> Option<&'static str> {
        Tuning::parse("table", text).unwrap().find(call, |_| true).map(|line| line.algorithm)
    }

    #[test]
    fn the_first_line_that_fits_decides() {
        let text = "# small ones\n\
                    all_reduce 2..=4 0..64K * private one_shot # fast\n\
                    \t AllReduce   2,\u{e9}"
            .replace("2,\u{e9}", "* 64K..=1M float * TwoShot slice=64K\n* * * * * ring");
        let all_reduce = |size, bytes| chosen(&text, &sought(Collective::AllReduce, size, bytes));
        assert_eq!(all_reduce(2, 0), Some("one_shot"));
        assert_eq!(all_reduce(4, (64 << 10) - 1), Some("one_shot"));
        assert_eq!(all_reduce(4, 64 << 10), Some("two_shot"));
        assert_eq!(all_reduce(5, 1), Some("ring"));
        assert_eq!(all_reduce(4, (1 << 20) + 1), Some("ring"));
        let registered = Sought { registered: true, ..sought(Collective::AllReduce, 2, 1) };
        assert_eq!(chosen(&text, &registered), Some("ring"));
        let halves = Sought { dtype: DType::F16, ..sought(Collective::AllReduce, 2, 64 << 10) };
        assert_eq!(chosen(&text, &halves), Some("ring"));
        let table = Tuning::parse("table", &text).unwrap();
        let line = table.find(&sought(Collective::AllReduce, 2, 1 << 20), |_| true).unwrap();
        assert_eq!((line.slice, table.tell(line)), (Some(64 << 10), "two_shot (line 3 of table)".into()));
    }

    #[test]
    fn a_line_whose_algorithm_may_not_be_chosen_is_passed_over() {
        let table = Tuning::parse("table", "* * * * * ring\n* * * * * one_shot").unwrap();
        let call = sought(Collective::AllReduce, 2, 8);
        let found = |may: fn(&str) -> bool| table.find(&call, may).map(|line| line.algorithm);
        assert_eq!(found(|name| name != "ring"), Some("one_shot"));
        assert_eq!(found(|name| name == "bruck"), None);
        assert_eq!(chosen("# nothing\n\n", &call), None);
    }

    #[test]
    fn wrong_words_are_told_with_line_and_column_and_what_there_is() {
        for (text, says) in [
            ("all_reduce 2 * * *", "line 1, column 19: 5 columns, not 6 (collective, ranks, bytes"),
            (
                "\n  all_reduces * * * * ring",
                "line 2, column 3: names \"all_reduces\", which is no collective",
            ),
            ("* 4..2 * * * ring", "line 1, column 3: \"4..2\" is an empty range"),
            ("* 4..4 * * * ring", "\"4..4\" is an empty range"),
            ("* -1 * * * ring", "column 3: \"-1\" is no range; write for example 2, 2..=8 or *"),
            ("* * 64X * * ring", "column 5: \"64X\" is no range; write for example 64K"),
            ("* * 17179869184G * * ring", "is no range"),
            ("* * * f32 * ring", "column 7: \"f32\" is no element type; there are int8"),
            ("\u{e9}\u{e9} * * * * ring", "column 1: names"),
            ("* * * * pinned ring", "column 9: \"pinned\" is neither registered nor private"),
            ("* * * * * rings", "column 11: names \"rings\", which is no algorithm; there are one_shot"),
            (
                "* * * * * ring slice=1K",
                "column 16: \"1K\" is no slice; it is a multiple of 64 from 4K to 256K",
            ),
            ("* * * * * ring slice=4097", "is no slice"),
            ("* * * * * ring pieces=4", "column 16: \"pieces=4\" is no setting; there is slice=BYTES"),
        ] {
            let error = Tuning::parse("table", text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
