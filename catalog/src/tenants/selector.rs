//! PURE: which labels a tenant must have, in the grammar of Kubernetes' label selectors.
//!
//! `plan=pro`, `plan==pro`, `plan!=free`, `plan in (pro, team)`, `plan notin (free)`, `plan` (has it), `!plan` (has it
//! not). A comma means "and". `!=` and `notin` also mean tenants without the label. A text that does not follow the
//! grammar is an error, and never a selector for something else.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::labels::is_label_key;
use crate::error::{Error, ErrorKind, Result};

/// A statement of the catalog takes a bounded number of arguments, and nobody types more.
const VALUES_MAX: usize = 256;

/// What a tenant's labels must meet, all of it. Nothing asked for: every tenant meets it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Present(String),
    Absent(String),
    OneOf(String, Vec<String>),
    NoneOf(String, Vec<String>),
}

impl LabelSelector {
    /// True when nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Both must be met.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.requirements.extend(other.requirements);
        self
    }

    /// The conditions on `t.id`, with arguments from number `first` on.
    pub(super) fn conditions(&self, first: usize) -> (String, Vec<String>) {
        let (mut sql, mut arguments) = (String::new(), Vec::new());
        for requirement in &self.requirements {
            let (negation, key, values) = match requirement {
                Requirement::Present(key) => ("", key, None),
                Requirement::Absent(key) => ("not ", key, None),
                Requirement::OneOf(key, values) => ("", key, Some(values)),
                Requirement::NoneOf(key, values) => ("not ", key, Some(values)),
            };
            let number = first + arguments.len();
            sql += &format!(" and t.id {negation}in (select tenant_id from tenant_labels where key = ${number}");
            arguments.push(key.clone());
            if let Some(values) = values {
                let places: Vec<_> = (1..=values.len()).map(|place| format!("${}", number + place)).collect();
                sql += &format!(" and value in ({})", places.join(", "));
                arguments.extend(values.iter().cloned());
            }
            sql.push(')');
        }
        (sql, arguments)
    }
}

impl From<BTreeMap<String, String>> for LabelSelector {
    fn from(labels: BTreeMap<String, String>) -> Self {
        let requirements = labels.into_iter().map(|(key, value)| Requirement::OneOf(key, vec![value])).collect();
        Self { requirements }
    }
}

impl FromStr for LabelSelector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (mut requirements, mut rest) = (Vec::new(), text);
        loop {
            let (requirement, after) = requirement(rest)?;
            requirements.push(requirement);
            match after.trim_start() {
                "" => break,
                after => rest = after.strip_prefix(',').ok_or_else(|| wrong(after))?,
            }
        }
        let values: usize = requirements.iter().map(Requirement::arguments).sum();
        if values > VALUES_MAX {
            return Err(Error::new(ErrorKind::Invalid, format!("a selector has at most {VALUES_MAX} keys and values")));
        }
        Ok(Self { requirements })
    }
}

impl Requirement {
    fn arguments(&self) -> usize {
        match self {
            Self::Present(_) | Self::Absent(_) => 1,
            Self::OneOf(_, values) | Self::NoneOf(_, values) => 1 + values.len(),
        }
    }
}

/// One requirement, and the text behind it.
fn requirement(text: &str) -> Result<(Requirement, &str)> {
    let text = text.trim_start();
    if let Some(negated) = text.strip_prefix('!') {
        let (key, rest) = key(negated.trim_start())?;
        return Ok((Requirement::Absent(key), rest));
    }
    let (key, rest) = key(text)?;
    let rest = rest.trim_start();
    if let Some(rest) = rest.strip_prefix("!=") {
        let (value, rest) = value(rest);
        return Ok((Requirement::NoneOf(key, vec![value]), rest));
    }
    if let Some(rest) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        let (value, rest) = value(rest);
        return Ok((Requirement::OneOf(key, vec![value]), rest));
    }
    if let Some(list) = rest.strip_prefix("notin").map(str::trim_start).and_then(|rest| rest.strip_prefix('(')) {
        let (values, rest) = values(list)?;
        return Ok((Requirement::NoneOf(key, values), rest));
    }
    if let Some(list) = rest.strip_prefix("in").map(str::trim_start).and_then(|rest| rest.strip_prefix('(')) {
        let (values, rest) = values(list)?;
        return Ok((Requirement::OneOf(key, values), rest));
    }
    Ok((Requirement::Present(key), rest))
}

fn key(text: &str) -> Result<(String, &str)> {
    let end = text.find(|c: char| c.is_whitespace() || ",=!()<>".contains(c)).unwrap_or(text.len());
    let (key, rest) = text.split_at(end);
    if is_label_key(key) { Ok((key.to_owned(), rest)) } else { Err(wrong(text)) }
}

/// A value ends at the next comma: labels may hold any other character.
fn value(text: &str) -> (String, &str) {
    let (value, rest) = text.split_at(text.find(',').unwrap_or(text.len()));
    (value.trim().to_owned(), rest)
}

/// The values of a list, and the text behind its parenthesis.
fn values(text: &str) -> Result<(Vec<String>, &str)> {
    let (list, rest) = text.split_once(')').ok_or_else(|| wrong(text))?;
    Ok((list.split(',').map(|value| value.trim().to_owned()).collect(), rest))
}

fn wrong(rest: &str) -> Error {
    let shown: String = rest.chars().take(40).flat_map(char::escape_debug).collect();
    let message = format!(
        "the label selector is not understood at '{shown}': \
         write k=v, k!=v, 'k in (a,b)', 'k notin (a,b)', k or !k, separated by commas"
    );
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Requirement::{Absent, NoneOf, OneOf, Present};
    use super::*;

    fn parsed(text: &str) -> Vec<Requirement> {
        text.parse::<LabelSelector>().unwrap_or_else(|error| panic!("{text:?}: {error}")).requirements
    }

    fn one_of(key: &str, values: &[&str]) -> Requirement {
        OneOf(key.to_owned(), values.iter().map(|value| (*value).to_owned()).collect())
    }

    fn none_of(key: &str, values: &[&str]) -> Requirement {
        NoneOf(key.to_owned(), values.iter().map(|value| (*value).to_owned()).collect())
    }

    #[test]
    fn every_form_is_understood() {
        for text in ["plan=pro", "plan==pro", " plan = pro ", "plan in (pro)", "plan in(pro)", "plan  in  ( pro )"] {
            assert_eq!(parsed(text), [one_of("plan", &["pro"])], "{text}");
        }
        for text in ["plan!=free", "plan != free", "plan notin (free)", "plan notin(free)"] {
            assert_eq!(parsed(text), [none_of("plan", &["free"])], "{text}");
        }
        assert_eq!(parsed("plan"), [Present("plan".into())]);
        assert_eq!(parsed("in"), [Present("in".into())]);
        assert_eq!(parsed("!plan"), [Absent("plan".into())]);
        assert_eq!(parsed("! plan"), [Absent("plan".into())]);
        assert_eq!(parsed("note="), [one_of("note", &[""])]);
        assert_eq!(parsed("note=a=b (c)"), [one_of("note", &["a=b (c)"])]);
        let all = [one_of("plan", &["pro", "team"]), Absent("old".into()), none_of("region", &["eu"])];
        assert_eq!(parsed("plan in (pro, team),!old , region!=eu"), all);
    }

    #[test]
    fn anything_else_is_refused() {
        let wrong = [
            "",
            " ",
            ",",
            "a=b,",
            ",a=b",
            "=x",
            "!",
            "!=x",
            "!a=b",
            "!!a",
            "a b",
            "a in",
            "a in (",
            "a in b",
            "a notin",
            "a in (b",
            "a in (b) c",
            "a>1",
            "a<1",
            "(a)",
            "a,,b",
            "plan!",
            "pl an=x",
            "\u{e4}=x",
            "a in (b)c=d",
            "a!",
        ];
        for text in wrong {
            // `a in` is read as a key with something behind it.
            assert!(text.parse::<LabelSelector>().is_err(), "{text:?}");
        }
        let many = format!("a in ({})", vec!["x"; VALUES_MAX].join(","));
        assert!(many.parse::<LabelSelector>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_stop(text in ".{0,60}") {
            let _ = text.parse::<LabelSelector>();
        }

        #[test]
        fn what_is_written_is_read(key in "[a-z][a-z0-9./_-]{0,8}", values in prop::collection::vec("[a-z0-9]{0,4}", 1..4)) {
            let list = values.join(",");
            prop_assert_eq!(parsed(&format!("{key} in ({list})")), [OneOf(key.clone(), values.clone())]);
            prop_assert_eq!(parsed(&format!("{key} notin ({list})")), [NoneOf(key, values)]);
        }
    }
}
