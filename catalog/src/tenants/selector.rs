//! PURE: label selectors of tenants, in the grammar of Kubernetes.
//!
//! `plan=pro`, `plan==pro`, `plan!=free`, `plan in (pro, team)`, `plan notin (free)`, `plan` (has the label), `!plan`
//! (does not have it). A comma means "and". `!=` and `notin` also match tenants without the label. A text that does not
//! follow the grammar is an error, and never read as another selector.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::labels::is_label_key;
use crate::error::{Error, ErrorKind, Result};

/// Maximum number of keys and values, because a statement of the catalog has a limited number of arguments.
const VALUES_MAX: usize = 256;

/// Requirements for a tenant's labels, all of which must be met. An empty selector matches every tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<LabelRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelRequirement {
    Present(String),
    Absent(String),
    OneOf(String, Vec<String>),
    NoneOf(String, Vec<String>),
}

impl LabelSelector {
    /// True when there are no requirements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Combines two selectors; both must match.
    #[must_use]
    pub fn combined_with(mut self, other: Self) -> Self {
        self.requirements.extend(other.requirements);
        self
    }

    /// The conditions on `t.id`, with arguments from number `first`.
    pub(super) fn sql_conditions(&self, first: usize) -> (String, Vec<String>) {
        let (mut sql, mut arguments) = (String::new(), Vec::new());
        for requirement in &self.requirements {
            let (negation, key, values) = match requirement {
                LabelRequirement::Present(key) => ("", key, None),
                LabelRequirement::Absent(key) => ("not ", key, None),
                LabelRequirement::OneOf(key, values) => ("", key, Some(values)),
                LabelRequirement::NoneOf(key, values) => ("not ", key, Some(values)),
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
        let requirements = labels.into_iter().map(|(key, value)| LabelRequirement::OneOf(key, vec![value])).collect();
        Self { requirements }
    }
}

impl FromStr for LabelSelector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (mut requirements, mut rest) = (Vec::new(), text);
        loop {
            let (requirement, after) = parse_requirement(rest)?;
            requirements.push(requirement);
            match after.trim_start() {
                "" => break,
                after => rest = after.strip_prefix(',').ok_or_else(|| selector_error(after))?,
            }
        }
        let values: usize = requirements.iter().map(LabelRequirement::argument_count).sum();
        if values > VALUES_MAX {
            return Err(Error::new(ErrorKind::Invalid, format!("a selector has at most {VALUES_MAX} keys and values")));
        }
        Ok(Self { requirements })
    }
}

impl LabelRequirement {
    fn argument_count(&self) -> usize {
        match self {
            Self::Present(_) | Self::Absent(_) => 1,
            Self::OneOf(_, values) | Self::NoneOf(_, values) => 1 + values.len(),
        }
    }
}

/// Parses one requirement; returns it with the rest of the text.
fn parse_requirement(text: &str) -> Result<(LabelRequirement, &str)> {
    let text = text.trim_start();
    if let Some(negated) = text.strip_prefix('!') {
        let (key, rest) = parse_key(negated.trim_start())?;
        return Ok((LabelRequirement::Absent(key), rest));
    }
    let (key, rest) = parse_key(text)?;
    let rest = rest.trim_start();
    if let Some(rest) = rest.strip_prefix("!=") {
        let (value, rest) = parse_value(rest);
        return Ok((LabelRequirement::NoneOf(key, vec![value]), rest));
    }
    if let Some(rest) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        let (value, rest) = parse_value(rest);
        return Ok((LabelRequirement::OneOf(key, vec![value]), rest));
    }
    if let Some(list) = rest.strip_prefix("notin").map(str::trim_start).and_then(|rest| rest.strip_prefix('(')) {
        let (values, rest) = parse_values(list)?;
        return Ok((LabelRequirement::NoneOf(key, values), rest));
    }
    if let Some(list) = rest.strip_prefix("in").map(str::trim_start).and_then(|rest| rest.strip_prefix('(')) {
        let (values, rest) = parse_values(list)?;
        return Ok((LabelRequirement::OneOf(key, values), rest));
    }
    Ok((LabelRequirement::Present(key), rest))
}

fn parse_key(text: &str) -> Result<(String, &str)> {
    let end = text.find(|c: char| c.is_whitespace() || ",=!()<>".contains(c)).unwrap_or(text.len());
    let (key, rest) = text.split_at(end);
    if is_label_key(key) { Ok((key.to_owned(), rest)) } else { Err(selector_error(text)) }
}

/// Parses a value, which ends at the next comma. Labels may contain any other character.
fn parse_value(text: &str) -> (String, &str) {
    let (value, rest) = text.split_at(text.find(',').unwrap_or(text.len()));
    (value.trim().to_owned(), rest)
}

/// Parses the values of a list; returns them with the text after its parenthesis.
fn parse_values(text: &str) -> Result<(Vec<String>, &str)> {
    let (list, rest) = text.split_once(')').ok_or_else(|| selector_error(text))?;
    Ok((list.split(',').map(|value| value.trim().to_owned()).collect(), rest))
}

fn selector_error(rest: &str) -> Error {
    let shown: String = rest.chars().take(40).flat_map(char::escape_debug).collect();
    let message = format!(
        "the label selector is not valid at '{shown}': \
         write k=v, k!=v, 'k in (a,b)', 'k notin (a,b)', k or !k, separated by commas"
    );
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::LabelRequirement::{Absent, NoneOf, OneOf, Present};
    use super::*;

    fn parsed(text: &str) -> Vec<LabelRequirement> {
        text.parse::<LabelSelector>().unwrap_or_else(|error| panic!("{text:?}: {error}")).requirements
    }

    fn one_of(key: &str, values: &[&str]) -> LabelRequirement {
        OneOf(key.to_owned(), values.iter().map(|value| (*value).to_owned()).collect())
    }

    fn none_of(key: &str, values: &[&str]) -> LabelRequirement {
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
            // `a in` is read as a key followed by other text.
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
