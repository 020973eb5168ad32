//! What every error code means. Tests hold this table against the crates that make the codes.

mod asked;
mod databases;
mod fleet;
mod requests;
mod servers;

/// One code.
#[derive(Debug)]
pub(crate) struct Explanation {
    pub(crate) code: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) causes: &'static str,
    pub(crate) next: &'static str,
}

/// The explanation of a code.
pub(crate) fn find(code: &str) -> Option<&'static Explanation> {
    all().find(|e| e.code == code)
}

const fn e(code: &'static str, meaning: &'static str, causes: &'static str, next: &'static str) -> Explanation {
    Explanation { code, meaning, causes, next }
}

/// Every code a user can meet, grouped by who makes it.
pub(crate) fn all() -> impl Iterator<Item = &'static Explanation> {
    [asked::ALL, requests::ALL, databases::ALL, servers::ALL, fleet::ALL].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_once_and_has_everything() {
        let mut met = std::collections::BTreeSet::new();
        for e in all() {
            assert!(met.insert(e.code), "{} stands twice", e.code);
            assert!(![e.meaning, e.causes, e.next].contains(&""), "{}", e.code);
        }
    }
}
