//! Routes that the kit may leave out. The list is kept with the application's source, and may only become shorter.

use std::collections::BTreeSet;

use crate::error::{KitError, Result};

/// The routes that may be without a class, or without an answer to their own tenant.
#[derive(Debug, Clone, Default)]
pub struct RouteExceptions {
    routes: BTreeSet<String>,
}

impl RouteExceptions {
    /// Reads a list: one route in each line, such as `POST /t/{tenant}/session`. Text after `#` says why.
    ///
    /// # Errors
    /// `exceptions_invalid` for a line that is not a method and a path.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let mut routes = BTreeSet::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let is_route = line.split_once(' ').is_some_and(|(_, path)| path.starts_with('/') && !path.contains(' '));
            if !is_route {
                return Err(KitError::new("exceptions_invalid", format!("{line:?} is not a method and a path")));
            }
            routes.insert(line.to_owned());
        }
        Ok(Self { routes })
    }

    /// The exceptions that no uncovered route needs.
    pub(crate) fn needless(&self, uncovered: &BTreeSet<String>) -> Vec<String> {
        self.routes.difference(uncovered).cloned().collect()
    }

    pub(crate) fn contains(&self, route: &str) -> bool {
        self.routes.contains(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_reasons_and_tells_what_it_does_not_need() {
        let list =
            RouteExceptions::parse("# sign-in\nPOST /t/{tenant}/session  # needs a ticket\n\nGET /old\n").unwrap();
        assert!(list.contains("POST /t/{tenant}/session"));
        assert_eq!(list.needless(&BTreeSet::from(["POST /t/{tenant}/session".to_owned()])), ["GET /old"]);
        for wrong in ["GET", "/path", "GET path", "GET /a b"] {
            assert_eq!(RouteExceptions::parse(wrong).unwrap_err().code(), "exceptions_invalid", "{wrong}");
        }
    }
}
