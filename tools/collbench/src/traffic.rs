//! How much each rank gives each other one in an all-to-all whose blocks have lengths of their own: drawn from a spread, or
//! read from a file.
//!
//! Invariant: every rank computes the same matrix, from the command line and the file alone.

use crate::pattern::mix;
use std::fmt;
use std::path::Path;

/// The most ranks a matrix may be for: more than a job can have.
const RANKS_MAX: usize = 1024;

/// Where the lengths come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// Drawn, from a seed.
    Spread(Spread, u64),
    /// Read from a file. The numbers are weights; or bytes, if `exact`.
    Matrix { name: String, weights: Vec<Vec<f64>>, exact: bool },
    /// All to the next rank: what is made by sends and receives.
    Ring,
}

/// A rule by which what a rank gives is shared out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Spread {
    /// The k-th most popular rank gets a share of k to the minus so much; all ranks agree on who is popular.
    Zipf(f64),
    /// Each pair's share is even but for up to this part of it, more or less.
    Uniform(f64),
    /// So many ranks get everything, the others nothing.
    Hot(u32),
    /// Rank 0 gets so many times the share of each other rank: how the benchmark of the peers shares out.
    First(f64),
    /// The rule of nccl-tests: at 1, shares grow with the distance between the ranks' numbers; at 0 they are even.
    Distance(f64),
}

impl Spread {
    /// `zipf:1.2`, `uniform:0.5`, `hot:1`, `first:4`, `distance:1`.
    ///
    /// # Errors
    /// Says what there is.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no spread; spreads are zipf:1.2 (0 to 10), uniform:0.5 (0 to 1), hot:1 (a number of ranks), \
                 first:4 (0 to 1000) and distance:1 (0 to 1)"
            )
        };
        let (name, number) = text.split_once(':').ok_or_else(wrong)?;
        let upto = |most: f64| {
            let value = number.parse::<f64>().ok().filter(|value| (0.0..=most).contains(value));
            value.ok_or_else(wrong)
        };
        match name {
            "zipf" => upto(10.0).map(Self::Zipf),
            "uniform" => upto(1.0).map(Self::Uniform),
            "hot" => number.parse().ok().filter(|ranks| *ranks > 0).map(Self::Hot).ok_or_else(wrong),
            "first" => upto(1_000.0).map(Self::First),
            "distance" => upto(1.0).map(Self::Distance),
            _ => Err(wrong()),
        }
    }

    /// The weights of what `from` gives each rank.
    fn weights(self, ranks: usize, from: usize, seed: u64) -> Vec<f64> {
        let popularity = popularity(ranks, seed);
        let weight = |to: usize| match self {
            Self::Zipf(exponent) => (popularity[to] as f64 + 1.0).powf(-exponent),
            Self::Uniform(part) => {
                let drawn = mix(mix(seed) ^ ((from as u64) << 32 | to as u64));
                1.0 + part * (drawn as f64 / u64::MAX as f64 * 2.0 - 1.0)
            }
            Self::Hot(hot) => f64::from(u8::from(popularity[to] < hot as usize)),
            Self::First(times) if to == 0 && ranks > 1 => times,
            Self::First(_) => 1.0,
            Self::Distance(_) if ranks == 1 => 1.0,
            Self::Distance(part) => {
                let distance = ((to + ranks - from) % ranks) as f64;
                let all = (ranks * (ranks - 1) / 2) as f64;
                (1.0 - part) / ranks as f64 + part * distance / all
            }
        };
        (0..ranks).map(weight).collect()
    }
}

/// How many ranks are more popular than each: a shuffle of `0..ranks`.
fn popularity(ranks: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ranks).collect();
    order.sort_by_key(|rank| mix(seed.wrapping_mul(0x1_0000_0001) ^ *rank as u64));
    let mut place = vec![0; ranks];
    order.into_iter().enumerate().for_each(|(at, rank)| place[rank] = at);
    place
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spread(Spread::Zipf(exponent), seed) => write!(f, "zipf:{exponent}, seed {seed}"),
            Self::Spread(Spread::Uniform(part), seed) => write!(f, "uniform:{part}, seed {seed}"),
            Self::Spread(Spread::Hot(ranks), seed) => write!(f, "hot:{ranks}, seed {seed}"),
            Self::Spread(Spread::First(times), _) => write!(f, "first:{times}"),
            Self::Spread(Spread::Distance(part), _) => write!(f, "distance:{part}"),
            Self::Matrix { name, exact: false, .. } => write!(f, "weights of {name}"),
            Self::Matrix { name, exact: true, .. } => write!(f, "bytes of {name}"),
            Self::Ring => f.write_str("each rank to the next"),
        }
    }
}

impl Source {
    /// Reads a matrix: a row for each rank that gives, in it a number for each rank that gets.
    ///
    /// # Errors
    /// Names the file, the line, and what is wrong with it.
    pub(crate) fn read(path: &Path, exact: bool) -> Result<Self, String> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        let weights = parse(&text).map_err(|(line, why)| match line {
            0 => format!("{name}: {why}"),
            line => format!("{name}, line {line}: {why}"),
        })?;
        Ok(Self::Matrix { name, weights, exact })
    }

    /// Whether it is for jobs of so many ranks.
    ///
    /// # Errors
    /// Says why not.
    pub(crate) fn fits(&self, ranks: u32) -> Result<(), String> {
        match self {
            Self::Spread(Spread::Hot(hot), _) if *hot > ranks => {
                Err(format!("hot:{hot} is more ranks than the job's {ranks}"))
            }
            Self::Matrix { name, weights, .. } if weights.len() < ranks as usize => {
                Err(format!("{name} is a matrix for {} ranks, too few for a job of {ranks}", weights.len()))
            }
            _ => Ok(()),
        }
    }

    /// Whether the lengths are given, and no sizes are to be tried.
    pub(crate) fn is_exact(&self) -> bool {
        matches!(self, Self::Matrix { exact: true, .. })
    }

    /// The lengths for ranks that give `asked` bytes each; from a matrix, for a busiest rank that gives or gets so many.
    pub(crate) fn traffic(&self, ranks: u32, asked: u64, element: usize) -> Traffic {
        let ranks = ranks as usize;
        let elements = asked / element as u64;
        let gives = match self {
            Self::Ring => {
                let give = |from, to| if to == (from + 1) % ranks { elements as usize } else { 0 };
                (0..ranks).map(|from| (0..ranks).map(|to| give(from, to)).collect()).collect()
            }
            Self::Spread(spread, seed) => {
                (0..ranks).map(|from| shares(&spread.weights(ranks, from, *seed), elements)).collect()
            }
            Self::Matrix { weights, exact, .. } => {
                let row = |row: &Vec<f64>| row[..ranks].to_vec();
                let rows: Vec<Vec<f64>> = weights[..ranks].iter().map(row).collect();
                let given = rows.iter().map(|row| row.iter().sum::<f64>());
                let got = (0..ranks).map(|to| rows.iter().map(|row| row[to]).sum::<f64>());
                let busiest = given.chain(got).fold(0.0, f64::max);
                let scale = match exact {
                    true => 1.0 / element as f64,
                    false if busiest > 0.0 => elements as f64 / busiest,
                    false => 0.0,
                };
                let counts =
                    |row: &Vec<f64>| row.iter().map(|weight| (weight * scale + 1e-6) as usize).collect();
                rows.iter().map(counts).collect()
            }
        };
        let (traffic, ring) = (Traffic::new(gives, element), *self == Self::Ring);
        Traffic { ring, in_place: traffic.in_place && !ring, ..traffic }
    }
}

/// `elements` shared out by weights, to the last one.
fn shares(weights: &[f64], elements: u64) -> Vec<usize> {
    let whole: f64 = weights.iter().sum();
    let mut upto = 0.0;
    let mut given = 0;
    let share = |weight: &f64| {
        upto += weight;
        let until = (elements as f64 * (upto / whole)).round() as usize;
        let share = until - given;
        given = until;
        share
    };
    weights.iter().map(share).collect()
}

/// Rows of numbers; or the line, and what is wrong with it. Line 0 is the whole.
fn parse(text: &str) -> Result<Vec<Vec<f64>>, (usize, String)> {
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let told = |why: String| (line, why);
        let text = text.split('#').next().unwrap_or("").trim();
        if text.is_empty() {
            continue;
        }
        let words = match text.contains(',') {
            // A comma at the end of a line ends it.
            true => text.strip_suffix(',').unwrap_or(text).split(',').map(str::trim).collect::<Vec<_>>(),
            false => text.split_whitespace().collect(),
        };
        let number = |(column, word): (usize, &&str)| {
            let value = word.parse::<f64>().ok().filter(|value| (0.0..=1e15).contains(value));
            value.ok_or_else(|| {
                told(format!("column {column} is {word:?}, which is no number from 0 to 1e15"))
            })
        };
        let row = (1..).zip(&words).map(number).collect::<Result<Vec<f64>, _>>()?;
        if let Some(first) = rows.first().filter(|first| first.len() != row.len()) {
            return Err(told(format!("{} numbers, where the first row has {}", row.len(), first.len())));
        }
        if row.len() > RANKS_MAX {
            let count = row.len();
            return Err(told(format!("{count} numbers, more than {RANKS_MAX}, the most ranks of a job")));
        }
        if rows.len() == row.len() {
            return Err(told(format!(
                "the matrix is not square: {} rows of {0} numbers were complete",
                row.len()
            )));
        }
        rows.push(row);
    }
    match rows.first() {
        None => Err((0, "there is no number in it".into())),
        Some(row) if row.len() != rows.len() => {
            Err((0, format!("the matrix is not square: {} rows of {} numbers", rows.len(), row.len())))
        }
        Some(_) => Ok(rows),
    }
}

/// What every rank gives every rank, in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// By the rank that gives, then by the rank that gets.
    gives: Vec<Vec<usize>>,
    /// By the rank that gets, then by the rank that gives.
    gets: Vec<Vec<usize>>,
    /// Bytes of one element.
    element: usize,
    /// Whether it goes round a ring, by sends and receives.
    pub(crate) ring: bool,
    /// Whether the call is made in place too: each rank gets from each as much as it gives it.
    pub(crate) in_place: bool,
}

impl Traffic {
    /// From what each rank gives.
    ///
    /// # Panics
    /// When the matrix is not square.
    pub(crate) fn new(gives: Vec<Vec<usize>>, element: usize) -> Self {
        assert!(gives.iter().all(|row| row.len() == gives.len()), "a matrix is square");
        let gets = (0..gives.len()).map(|to| gives.iter().map(|row| row[to]).collect()).collect();
        let in_place = gives == gets;
        Self { gives, gets, element, ring: false, in_place }
    }

    /// Bytes that `rank` gives each rank.
    pub(crate) fn gives(&self, rank: u32) -> Vec<usize> {
        self.gives[rank as usize].iter().map(|count| count * self.element).collect()
    }

    /// Bytes that `rank` gets from each rank.
    pub(crate) fn gets(&self, rank: u32) -> Vec<usize> {
        self.gets[rank as usize].iter().map(|count| count * self.element).collect()
    }

    /// Elements that `from` gives the ranks below `to`.
    pub(crate) fn before(&self, from: u32, to: u32) -> usize {
        self.gives[from as usize][..to as usize].iter().sum()
    }

    /// Bytes of the busiest rank: what it gives, what it gets.
    pub(crate) fn most(&self) -> [usize; 2] {
        [&self.gives, &self.gets]
            .map(|rows| rows.iter().map(|row| row.iter().sum::<usize>() * self.element).max().unwrap_or(0))
    }

    /// Bytes that go from rank to rank, and those that stay.
    pub(crate) fn moved(&self) -> [usize; 2] {
        let all: usize = self.gives.iter().flatten().sum();
        let stay: usize = self.gives.iter().enumerate().map(|(rank, row)| row[rank]).sum();
        [(all - stay) * self.element, stay * self.element]
    }
}

#[cfg(test)]
mod tests;
