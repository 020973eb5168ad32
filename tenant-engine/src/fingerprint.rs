//! What is in a database, in a few numbers that do not depend on the order of its rows or on where it lies: the proof
//! that a copy holds the same.

use std::collections::BTreeMap;

/// Of one database: everything but its identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint {
    /// By the name of the table (with its schema on Postgres), and a few names for what is no table.
    pub tables: BTreeMap<String, TableSum>,
}

/// Of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSum {
    /// How many.
    pub rows: u64,
    /// The sum of the rows' hashes, as the engine writes it; comparable within one engine only.
    pub sum: String,
}

impl Fingerprint {
    /// The first thing that the other one has not, or has otherwise; `None` when both hold the same.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let mut names: Vec<&String> = self.tables.keys().chain(other.tables.keys()).collect();
        names.sort_unstable();
        names.into_iter().find_map(|name| match (self.tables.get(name), other.tables.get(name)) {
            (Some(one), Some(two)) if one == two => None,
            (Some(one), Some(two)) if one.rows != two.rows => {
                Some(format!("{name} has {} rows here and {} there", one.rows, two.rows))
            }
            (Some(_), Some(_)) => Some(format!("rows of {name} differ")),
            (Some(_), None) => Some(format!("{name} is not there")),
            (None, _) => Some(format!("{name} is there only")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_told() {
        let of = |tables: &[(&str, u64, &str)]| Fingerprint {
            tables: tables
                .iter()
                .map(|(n, rows, sum)| ((*n).to_owned(), TableSum { rows: *rows, sum: (*sum).to_owned() }))
                .collect(),
        };
        let here = of(&[("a", 1, "x"), ("b", 2, "y")]);
        assert_eq!(here.difference(&here), None);
        assert_eq!(here.difference(&of(&[("a", 1, "x"), ("b", 3, "y")])).unwrap(), "b has 2 rows here and 3 there");
        assert_eq!(here.difference(&of(&[("a", 1, "z"), ("b", 2, "y")])).unwrap(), "rows of a differ");
        assert_eq!(here.difference(&of(&[("b", 2, "y")])).unwrap(), "a is not there");
        assert_eq!(of(&[]).difference(&here).unwrap(), "a is there only");
    }
}
