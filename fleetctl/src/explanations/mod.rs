//! Explanations of all error codes. Tests compare this table with the codes of all crates.

mod databases;
mod fleet;
mod input_errors;
mod leak_tests;
mod requests;
mod servers;

/// The explanation of one error code.
#[derive(Debug)]
pub(crate) struct CodeExplanation {
    pub(crate) code: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) causes: &'static str,
    pub(crate) next: &'static str,
}

/// The explanation of a code; `None` for an unknown code.
pub(crate) fn find_explanation(code: &str) -> Option<&'static CodeExplanation> {
    all_explanations().find(|e| e.code == code)
}

const fn new_explanation(
    code: &'static str,
    meaning: &'static str,
    causes: &'static str,
    next: &'static str,
) -> CodeExplanation {
    CodeExplanation { code, meaning, causes, next }
}

/// Every code that a user can see, grouped by subject.
pub(crate) fn all_explanations() -> impl Iterator<Item = &'static CodeExplanation> {
    [input_errors::ALL, requests::ALL, databases::ALL, servers::ALL, fleet::ALL, leak_tests::ALL].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_once_and_has_everything() {
        let mut met = std::collections::BTreeSet::new();
        for e in all_explanations() {
            assert!(met.insert(e.code), "{} stands twice", e.code);
            assert!(![e.meaning, e.causes, e.next].contains(&""), "{}", e.code);
        }
    }

    #[test]
    fn every_kind_of_the_control_plane_is_explained() {
        for kind in control_plane::ErrorKind::ALL {
            assert!(find_explanation(kind.code()).is_some(), "{} is not explained", kind.code());
        }
    }
}
