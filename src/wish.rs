//! Which algorithms a user wants to be chosen, in the grammar of `NCCL_ALGO`.
//!
//! Lists are separated by `;`. A list of names, separated by commas, says which algorithms may be chosen; one that
//! starts with `^` says which may not. A list that starts with the name of a collective and a colon is for that one, a list
//! without for all that have none of their own: `ring;all_reduce:^two_shot,ring;broadcast:double_tree`.

use sohu_coll_algorithms as algorithms;
use sohu_coll_core::Collective;

/// What may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// As it was written, for errors.
    text: String,
    lists: Vec<List>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    /// `None`: for all that have no list of their own.
    collective: Option<Collective>,
    excludes: bool,
    names: Vec<&'static str>,
}

impl Wish {
    /// Reads a wish.
    ///
    /// # Errors
    /// Says which word is no collective or no algorithm, and what there is.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let lists = text.split(';').map(str::trim).filter(|list| !list.is_empty());
        let lists: Vec<List> = lists.map(List::parse).collect::<Result<_, _>>()?;
        if lists.is_empty() {
            return Err(format!("names no algorithm; there are {}", known()));
        }
        for (at, list) in lists.iter().enumerate() {
            if lists[..at].iter().any(|before| before.collective == list.collective) {
                let whose = list.collective.map_or("all collectives".into(), |c| c.to_string());
                return Err(format!("has two lists for {whose}; join them by a comma"));
            }
        }
        Ok(Self { text: text.into(), lists })
    }

    /// Whether an algorithm may be chosen.
    pub(crate) fn allows(&self, collective: Collective, algorithm: &str) -> bool {
        let of = |wanted| self.lists.iter().find(|list| list.collective == wanted);
        of(Some(collective))
            .or_else(|| of(None))
            .is_none_or(|list| list.names.contains(&algorithm) != list.excludes)
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl List {
    fn parse(text: &str) -> Result<Self, String> {
        let (collective, names) = match text.split_once(':') {
            Some((name, names)) => (Some(collective(name.trim())?), names),
            None => (None, text),
        };
        let names = names.trim();
        let (excludes, names) = names.strip_prefix('^').map_or((false, names), |names| (true, names));
        let names = names.split(',').map(|name| algorithm(name.trim())).collect::<Result<_, _>>()?;
        Ok(Self { collective, excludes, names })
    }
}

/// Names are compared without case and underscores: NCCL writes `AllReduce` and `allreduce`.
fn plain(name: &str) -> String {
    name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

/// The collective of a name.
///
/// # Errors
/// Says what there is.
pub(crate) fn collective(name: &str) -> Result<Collective, String> {
    let found = Collective::ALL.into_iter().find(|collective| plain(collective.name()) == plain(name));
    found.ok_or_else(|| {
        let known = Collective::ALL.map(Collective::name).join(", ");
        format!("names {name:?}, which is no collective; there are {known}")
    })
}

/// The algorithm of a name, as it is written.
///
/// # Errors
/// Says what there is.
pub(crate) fn algorithm(name: &str) -> Result<&'static str, String> {
    let found = algorithms::all().iter().map(|a| a.name()).find(|known| plain(known) == plain(name));
    found.ok_or_else(|| format!("names {name:?}, which is no algorithm; there are {}", known()))
}

fn known() -> String {
    algorithms::all().iter().map(|a| a.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str, collective: Collective) -> Vec<&'static str> {
        let wish = Wish::parse(text).unwrap();
        let names = algorithms::all().iter().map(|a| a.name());
        names.filter(|name| wish.allows(collective, name)).take(4).collect()
    }

    #[test]
    fn a_list_is_for_its_collective_or_for_all_that_have_none() {
        let text = "ring; AllReduce:two_shot,ONE_SHOT ;broadcast:^ring,oneshot";
        assert_eq!(allowed(text, Collective::AllReduce), ["one_shot", "two_shot"]);
        assert_eq!(allowed(text, Collective::AllGather), ["ring"]);
        assert_eq!(
            allowed(text, Collective::Broadcast),
            ["two_shot", "recursive_doubling", "binomial", "bruck"]
        );
    }

    #[test]
    fn a_wish_for_one_collective_leaves_the_others_free() {
        let wish = Wish::parse("reduce:binomial").unwrap();
        assert!(wish.allows(Collective::AllReduce, "ring") && !wish.allows(Collective::Reduce, "ring"));
    }

    #[test]
    fn wrong_words_are_named_with_what_there_is() {
        for (text, says) in [
            ("rings", "\"rings\", which is no algorithm; there are one_shot"),
            ("allreduces:ring", "\"allreduces\", which is no collective; there are all_reduce"),
            (" ; ", "names no algorithm"),
            ("ring;two_shot", "two lists for all collectives"),
            ("all_reduce:ring;allreduce:ring", "two lists for all_reduce"),
            ("ring,,two_shot", "\"\", which is no algorithm"),
        ] {
            let error = Wish::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
