//! The content of a database in a few numbers that prove that a copy holds the same data.
//!
//! The numbers do not depend on the order of the rows or on where the database is stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The fingerprint of one database: everything except its identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatabaseFingerprint {
    /// One sum for each table, by the table's name (with its schema on Postgres). A few entries stand for content
    /// outside tables. The rows of partitions count as rows of their root table, because a restore may distribute them
    /// differently.
    pub tables: BTreeMap<String, TableSum>,
    /// The whole rows of tables with generated columns. [`DatabaseFingerprint::tables`] leaves those columns out where
    /// a restore computes them again.
    pub generated: BTreeMap<String, TableSum>,
    /// The objects besides rows; empty where the schema is one of the entries of [`DatabaseFingerprint::tables`].
    pub objects: SchemaObjects,
}

/// The schema objects of one database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SchemaObjects {
    /// The server's major version. Definitions are compared only between equal versions.
    pub version: u32,
    /// Keyed by class and name, such as `index public.by_name`. The value is the class and a hash of the definition.
    pub by_name: BTreeMap<String, (String, String)>,
}

/// A summary of the objects of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassSum {
    /// Number of objects of the class.
    pub count: u64,
    /// A hash of the names and definitions.
    pub sum: String,
    /// As [`SchemaObjects::version`].
    pub version: u32,
}

/// The sum of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSum {
    /// Number of rows.
    pub rows: u64,
    /// Sum of the hashes of the rows, as the engine writes it. Comparable within one engine only. Empty when only the
    /// count is known.
    pub sum: String,
}

/// The rows that a snapshot holds, to be compared with the restored database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowSums {
    /// As [`SchemaObjects::version`]. Another version may write a value differently, so then only counts are compared.
    pub version: u32,
    /// As [`DatabaseFingerprint::tables`]. More than [`TABLES_MAX`] tables become one entry.
    pub tables: BTreeMap<String, TableSum>,
    /// As [`DatabaseFingerprint::generated`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub generated: BTreeMap<String, TableSum>,
}

/// Maximum number of tables in a manifest, where each takes at most some hundred bytes.
pub const TABLES_MAX: usize = 5_000;
/// The name of the single entry for more tables than that.
const ALL_TABLES: &str = "all tables";

impl DatabaseFingerprint {
    /// The first table or object that is missing or different in `other`; `None` when both hold the same content.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<String> {
        self.difference_of_rows(other).or_else(|| self.objects.first_difference(&other.objects))
    }

    fn difference_of_rows(&self, other: &Self) -> Option<String> {
        let generated = || {
            let difference = difference_of_tables(&self.generated, &other.generated)?;
            Some(format!("{difference} in generated columns"))
        };
        difference_of_tables(&self.tables, &other.tables).or_else(generated)
    }

    /// The sums of the rows alone, without generated columns and schema objects.
    #[must_use]
    pub fn row_sums(self) -> RowSums {
        let (tables, generated) = (bound_tables(self.tables), bound_tables(self.generated));
        RowSums { version: self.objects.version, tables, generated }
    }
}

impl RowSums {
    /// The first table whose rows are missing or different in the copy.
    #[must_use]
    pub fn first_difference(&self, copy: &Self) -> Option<String> {
        if self.version == copy.version {
            return difference_of_tables(&self.tables, &copy.tables);
        }
        difference_of_tables(&without_sums(&self.tables), &without_sums(&copy.tables))
    }

    /// The first table whose generated columns have other values in the copy, while its other rows are equal.
    #[must_use]
    pub fn generated_difference(&self, copy: &Self) -> Option<String> {
        if self.version != copy.version {
            return None;
        }
        difference_of_tables(&self.generated, &copy.generated)
    }
}

fn without_sums(tables: &BTreeMap<String, TableSum>) -> BTreeMap<String, TableSum> {
    tables.iter().map(|(name, table)| (name.clone(), TableSum { rows: table.rows, sum: String::new() })).collect()
}

fn bound_tables(tables: BTreeMap<String, TableSum>) -> BTreeMap<String, TableSum> {
    if tables.len() <= TABLES_MAX {
        return tables;
    }
    // An unknown sum differs from one read to the next, and so does the hash of all sums.
    let known = tables.values().all(|table| !table.sum.is_empty());
    let (mut rows, mut hasher) = (0, blake3::Hasher::new());
    for (name, table) in &tables {
        rows += table.rows;
        hasher.update(format!("{name}\0{}\0{}\0", table.rows, table.sum).as_bytes());
    }
    let sum = if known { hasher.finalize().to_hex().to_string() } else { String::new() };
    BTreeMap::from([(ALL_TABLES.to_owned(), TableSum { rows, sum })])
}

fn difference_of_tables(here: &BTreeMap<String, TableSum>, there: &BTreeMap<String, TableSum>) -> Option<String> {
    let mut names: Vec<&String> = here.keys().chain(there.keys()).collect();
    names.sort_unstable();
    names.into_iter().find_map(|name| match (here.get(name), there.get(name)) {
        (Some(one), Some(two)) if one.rows != two.rows => {
            Some(format!("{name} has {} rows here and {} there", one.rows, two.rows))
        }
        (Some(one), Some(two)) if one.sum == two.sum || one.sum.is_empty() || two.sum.is_empty() => None,
        (Some(_), Some(_)) => Some(format!("rows of {name} differ")),
        (Some(_), None) => Some(format!("{name} is not there")),
        (None, _) => Some(format!("{name} is only in the other database")),
    })
}

impl SchemaObjects {
    /// The first object that is missing or different in `other`.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<String> {
        let names = self.by_name.keys().chain(other.by_name.keys());
        let mut names: Vec<&String> = names.collect();
        names.sort_unstable();
        names.into_iter().find_map(|name| match (self.by_name.get(name), other.by_name.get(name)) {
            (Some(one), Some(two)) if one == two || self.version != other.version => None,
            (Some(_), Some(_)) => Some(format!("{name} differs")),
            (Some(_), None) => Some(format!("{name} is not there")),
            (None, _) => Some(format!("{name} is only in the other database")),
        })
    }
}

/// The first class that has more, fewer or other objects in `two` than in `one`.
#[must_use]
pub fn class_difference(one: &BTreeMap<String, ClassSum>, two: &BTreeMap<String, ClassSum>) -> Option<String> {
    let mut classes: Vec<&String> = one.keys().chain(two.keys()).collect();
    classes.sort_unstable();
    let count = |sum: Option<&ClassSum>| sum.map_or(0, |sum| sum.count);
    classes.into_iter().find_map(|class| match (one.get(class), two.get(class)) {
        (one, two) if count(one) != count(two) => {
            Some(format!("{} objects of the class {class}, where {} are expected", count(two), count(one)))
        }
        (Some(one), Some(two)) if one.version == two.version && one.sum != two.sum => {
            Some(format!("objects of the class {class} differ"))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_compared_by_definition_within_one_version_only() {
        let of = |version, objects: &[(&str, &str)]| SchemaObjects {
            version,
            by_name: objects
                .iter()
                .map(|(name, definition)| {
                    let class = name.split(' ').next().unwrap().to_owned();
                    ((*name).to_owned(), (class, (*definition).to_owned()))
                })
                .collect(),
        };
        let here = of(15, &[("index a", "1"), ("rule b", "2")]);
        assert_eq!(here.first_difference(&here), None);
        assert_eq!(here.first_difference(&of(15, &[("index a", "x"), ("rule b", "2")])).unwrap(), "index a differs");
        assert_eq!(here.first_difference(&of(17, &[("index a", "x"), ("rule b", "2")])), None);
        assert_eq!(here.first_difference(&of(17, &[("index a", "1")])).unwrap(), "rule b is not there");
        assert_eq!(of(15, &[]).first_difference(&here).unwrap(), "index a is only in the other database");
    }

    #[test]
    fn classes_are_compared_by_count_and_hash() {
        let of = |version, count, sum: &str| {
            BTreeMap::from([("index".to_owned(), ClassSum { count, sum: sum.to_owned(), version })])
        };
        assert_eq!(class_difference(&of(15, 1, "a"), &of(15, 1, "a")), None);
        assert_eq!(class_difference(&of(15, 1, "a"), &of(16, 1, "b")), None);
        let differ = class_difference(&of(15, 1, "a"), &of(15, 1, "b"));
        assert_eq!(differ.unwrap(), "objects of the class index differ");
        let fewer = class_difference(&of(15, 2, "a"), &BTreeMap::new());
        assert_eq!(fewer.unwrap(), "0 objects of the class index, where 2 are expected");
    }

    #[test]
    fn rows_of_a_copy_are_compared_by_sum_within_one_version_and_by_count_elsewhere() {
        let of = |version, rows, sum: &str| RowSums {
            version,
            tables: BTreeMap::from([("a".to_owned(), TableSum { rows, sum: sum.to_owned() })]),
            generated: BTreeMap::new(),
        };
        assert_eq!(of(15, 1, "x").first_difference(&of(15, 1, "x")), None);
        assert_eq!(of(15, 1, "x").first_difference(&of(15, 1, "y")).unwrap(), "rows of a differ");
        assert_eq!(of(15, 1, "").first_difference(&of(15, 1, "y")), None, "not known");
        assert_eq!(of(15, 1, "x").first_difference(&of(16, 1, "y")), None);
        assert_eq!(of(15, 1, "x").first_difference(&of(16, 2, "x")).unwrap(), "a has 1 rows here and 2 there");
    }

    #[test]
    fn many_tables_are_one_entry() {
        let of = |changed: usize, sum: &str| {
            let sum = |n| if n == changed { sum.to_owned() } else { "s".to_owned() };
            let tables = (0..=TABLES_MAX).map(|n| (format!("t{n}"), TableSum { rows: 1, sum: sum(n) })).collect();
            DatabaseFingerprint { tables, ..DatabaseFingerprint::default() }.row_sums()
        };
        let same = of(7, "s");
        assert_eq!((same.tables.len(), same.tables[ALL_TABLES].rows), (1, 5_001));
        assert_eq!(same.first_difference(&of(7, "s")), None);
        assert_eq!(same.first_difference(&of(7, "x")).unwrap(), "rows of all tables differ");
        assert_eq!(of(7, "").first_difference(&same), None, "one that is not known leaves the count");
    }

    #[test]
    fn the_first_difference_is_told() {
        let of = |tables: &[(&str, u64, &str)]| DatabaseFingerprint {
            tables: tables
                .iter()
                .map(|(n, rows, sum)| ((*n).to_owned(), TableSum { rows: *rows, sum: (*sum).to_owned() }))
                .collect(),
            ..DatabaseFingerprint::default()
        };
        let here = of(&[("a", 1, "x"), ("b", 2, "y")]);
        assert_eq!(here.first_difference(&here), None);
        assert_eq!(
            here.first_difference(&of(&[("a", 1, "x"), ("b", 3, "y")])).unwrap(),
            "b has 2 rows here and 3 there"
        );
        assert_eq!(here.first_difference(&of(&[("a", 1, "z"), ("b", 2, "y")])).unwrap(), "rows of a differ");
        assert_eq!(here.first_difference(&of(&[("b", 2, "y")])).unwrap(), "a is not there");
        assert_eq!(of(&[]).first_difference(&here).unwrap(), "a is only in the other database");
    }
}
