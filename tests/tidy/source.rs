//! Reading the tree: which files there are, and which of their text is code, comment or test.
//!
//! Invariant: `code` and `comments` have as many lines as the file, and every character of the file is in at
//! most one of them, so a rule about code is not tripped by prose or by a string.

use std::fs;
use std::path::{Path, PathBuf};

/// One text file of the repository.
pub(crate) struct Source {
    /// Its path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
    /// Its code, line by line: comments and the insides of literals are blank. Empty if not Rust.
    pub(crate) code: Vec<String>,
    /// Its comments, line by line: all else is blank. Empty if not Rust.
    pub(crate) comments: Vec<String>,
    /// Which lines are compiled for tests only.
    pub(crate) test: Vec<bool>,
}

/// A function, as found in the code of a file.
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of its `fn`, from 0.
    pub(crate) line: usize,
    /// Lines from its `fn` to its closing brace.
    pub(crate) lines: usize,
}

impl Source {
    /// Takes a file apart.
    pub(crate) fn new(path: &str, text: String) -> Self {
        let (mut code, mut comments, mut test) = (Vec::new(), Vec::new(), Vec::new());
        if path.ends_with(".rs") {
            let (only_code, only_comments) = Lexer::new(&text).split();
            test = test_lines(path, &only_code);
            code = lines(&only_code);
            comments = lines(&only_comments);
        }
        Self { path: path.to_owned(), text, code, comments, test }
    }

    /// The lines of code that are not for tests only, numbered from 0.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().map(String::as_str).enumerate();
        lines.filter(|&(line, _)| !self.test[line])
    }

    /// Where line `line` (from 0) is, for people and editors.
    pub(crate) fn at(&self, line: usize) -> String {
        format!("{}:{}", self.path, line + 1)
    }

    /// Whether a comment with `word` in it stands on line `line` or above it, with fewer than `limit` lines of
    /// code between. Lines that are only comment do not count, so a long proof is as good as a short one.
    pub(crate) fn commented(&self, line: usize, limit: usize, word: &str) -> bool {
        let above = (0..=line).rev();
        let mut code_lines = 0;
        for at in above {
            if self.comments[at].contains(word) {
                return true;
            }
            code_lines += usize::from(!self.code[at].trim().is_empty());
            if code_lines > limit {
                return false;
            }
        }
        false
    }

    /// Every function with a body.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let code = self.code.join("\n");
        let mut found = Vec::new();
        for at in words(&code, "fn") {
            let rest = code[at + 2..].trim_start();
            let name: String = rest.chars().take_while(|&c| is_word(c)).collect();
            let Some(end) = (!name.is_empty()).then(|| item_end(&code, at)).flatten() else { continue };
            let line = code[..at].matches('\n').count();
            found.push(Function { name, line, lines: code[at..end].matches('\n').count() + 1 });
        }
        found
    }

    /// What the file names directly under `root`: for `std` the `env` of `std::env::var` and of
    /// `use std::{env, fs}`. With the line of each, from 0. Test code is left out.
    pub(crate) fn names_under(&self, root: &str) -> Vec<(usize, String)> {
        let code = self.code.join("\n");
        let prefix = format!("{root}::");
        let mut found = Vec::new();
        for (at, _) in code.match_indices(&prefix) {
            let line = code[..at].matches('\n').count();
            if self.test[line] || code[..at].ends_with(|c| is_word(c) || c == ':') {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            let text = match rest.starts_with('{') {
                true => &rest[..closing(rest).unwrap_or(rest.len())],
                false => rest.split(|c| !is_word(c)).next().unwrap_or_default(),
            };
            let names = text.split(|c| !is_word(c)).filter(|name| !name.is_empty());
            found.extend(names.map(|name| (line, name.to_owned())));
        }
        found
    }
}

/// Every text file under `root` that people wrote, in order of path.
pub(crate) fn tree(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    walk(root, &mut files);
    let mut sources: Vec<Source> = files
        .iter()
        .map(|file| {
            let path = file.strip_prefix(root).expect("walk stays under the root");
            let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            Source::new(&path.to_string_lossy().replace('\\', "/"), text)
        })
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder that could be opened can be listed").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                walk(&path, files);
            }
        } else if ["rs", "toml", "md", "txt", "sh", "lock"].contains(&extension.as_str()) || name == "run" {
            files.push(path);
        }
    }
}

/// Where `word` stands in `text` as a word of its own.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !text[..at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word))
}

/// Whether `word` stands in `text` as a word of its own.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    words(text, word).next().is_some()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn lines(text: &str) -> Vec<String> {
    text.split('\n').map(str::to_owned).collect()
}

/// The end of the item that starts at `at`: past its closing brace, or `None` where it has no body.
fn item_end(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (offset, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return None,
            '{' if depth == 0 => return closing(&code[at + offset..]).map(|end| at + offset + end),
            _ => {}
        }
    }
    None
}

/// Past the brace that closes the one `code` starts with.
fn closing(code: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (offset, c) in code.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return Some(offset + 1);
        }
    }
    None
}

/// Which lines are for tests only: all of a test file, and every item under `#[cfg(test)]`.
fn test_lines(path: &str, code: &str) -> Vec<bool> {
    let count = code.split('\n').count();
    let of_tests = |part: &str| matches!(part, "tests" | "benches" | "tests.rs");
    if path.split('/').any(of_tests) || path.ends_with("_tests.rs") {
        return vec![true; count];
    }
    let mut test = vec![false; count];
    for mark in ["#[cfg(test)]", "#[cfg(all(test"] {
        for (at, _) in code.match_indices(mark) {
            let start = code[at..].find(']').map_or(code.len(), |close| at + close + 1);
            let end = item_end(code, start).unwrap_or(start);
            let first = code[..at].matches('\n').count();
            let last = code[..end].matches('\n').count();
            test[first..=last].fill(true);
        }
    }
    test
}

/// What a character belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// Tells code from comments and literals, as far as the rules need it.
struct Lexer {
    text: Vec<char>,
    at: usize,
    code: String,
    comments: String,
}

impl Lexer {
    fn new(text: &str) -> Self {
        Self { text: text.chars().collect(), at: 0, code: String::new(), comments: String::new() }
    }

    fn split(mut self) -> (String, String) {
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('/')) => self.until(Kind::Comment, |rest| rest[0] == '\n'),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.string(),
                ('r', Some('"' | '#')) if !self.inside_word() => self.raw_string(),
                ('\'', _) => self.quote(),
                _ => self.emit(Kind::Code, 1),
            }
        }
        (self.code, self.comments)
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    /// Moves over `count` characters of one kind.
    fn emit(&mut self, kind: Kind, count: usize) {
        let end = (self.at + count).min(self.text.len());
        for &c in &self.text[self.at..end] {
            let blank = if c == '\n' { '\n' } else { ' ' };
            self.code.push(if kind == Kind::Code { c } else { blank });
            self.comments.push(if kind == Kind::Comment { c } else { blank });
        }
        self.at = end;
    }

    /// Moves to where `stop` says so, or to the end.
    fn until(&mut self, kind: Kind, stop: impl Fn(&[char]) -> bool) {
        while self.at < self.text.len() && !stop(&self.text[self.at..]) {
            self.emit(kind, 1);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth -= 1,
                (None, _) => return,
                _ => {
                    self.emit(Kind::Comment, 1);
                    continue;
                }
            }
            self.emit(Kind::Comment, 2);
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.emit(Kind::Code, 1);
        while let Some(c) = self.peek(0) {
            match c {
                '"' => return self.emit(Kind::Code, 1),
                '\\' => self.emit(Kind::Literal, 2),
                _ => self.emit(Kind::Literal, 1),
            }
        }
    }

    fn raw_string(&mut self) {
        let hashes = self.text[self.at + 1..].iter().take_while(|&&c| c == '#').count();
        if self.peek(1 + hashes) != Some('"') {
            return self.emit(Kind::Code, 1); // A raw identifier: `r#type`.
        }
        self.emit(Kind::Code, 2 + hashes);
        let ends =
            |rest: &[char]| rest[0] == '"' && rest[1..].iter().take_while(|&&c| c == '#').count() >= hashes;
        self.until(Kind::Literal, ends);
        self.emit(Kind::Code, 1 + hashes);
    }

    /// A character literal, or the tick of a lifetime.
    fn quote(&mut self) {
        self.emit(Kind::Code, 1);
        if self.peek(0) == Some('\\') {
            self.emit(Kind::Literal, 2);
            self.until(Kind::Literal, |rest| rest[0] == '\'');
            self.emit(Kind::Code, 1);
        } else if self.peek(1) == Some('\'') {
            self.emit(Kind::Literal, 1);
            self.emit(Kind::Code, 1);
        }
    }

    /// Whether the character before belongs to a word that is no prefix of a raw string (`b`, `c`).
    fn inside_word(&self) -> bool {
        let before = |back: usize| self.at.checked_sub(back).map(|at| self.text[at]);
        let prefix = matches!(before(1), Some('b' | 'c')) && !before(2).is_some_and(is_word);
        before(1).is_some_and(is_word) && !prefix
    }
}
