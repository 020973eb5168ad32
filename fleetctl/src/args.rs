//! Flags that several commands share: selection of tenants, waiting, confirmation.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fleet_api::bounded_number::BoundedNumber;
use fleet_api::selection::SelectionRequest;

use crate::context::CommandContext;
use crate::error::{CommandFailure, Result};
use crate::input;

/// The selection of tenants. Several conditions combine: a tenant must match all of them.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SelectionArgs {
    /// Tenants whose labels match this: k=v, k!=v, 'k in (a,b)', 'k notin (a,b)', k, '!k'; commas and repeats mean "and"
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR", help_heading = "Selection")]
    pub(crate) selectors: Vec<String>,
    /// Tenants on this server
    #[arg(long, value_name = "SERVER", help_heading = "Selection")]
    pub(crate) server: Option<String>,
    /// Tenants named in this file, one per line; - is standard input
    #[arg(long, value_name = "FILE", help_heading = "Selection")]
    pub(crate) from_file: Option<PathBuf>,
    /// Every tenant
    #[arg(long, help_heading = "Selection")]
    pub(crate) all: bool,
    /// Succeed when no tenant is selected
    #[arg(long, help_heading = "Selection")]
    pub(crate) allow_empty: bool,
}

/// Labels as `k=v` pairs.
pub(crate) type LabelPairs = Vec<(String, String)>;

/// What a command does when no tenant was selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenEmpty {
    /// Select all tenants: for reading commands.
    All,
    /// Refuse: for changing commands and queries.
    Refuse,
}

impl SelectionArgs {
    /// The selection as the API expects it.
    pub(crate) fn to_selection(
        &self,
        names: &[String],
        context: &mut CommandContext,
        empty: WhenEmpty,
    ) -> Result<SelectionRequest> {
        let mut names = names.to_vec();
        if let Some(file) = &self.from_file {
            names.extend(input::read_required_names(file, context)?);
        }
        let selection = SelectionRequest {
            names,
            selectors: self.selectors.clone(),
            server: self.server.clone(),
            ..SelectionRequest::default()
        };
        self.require_selection(selection, empty)
    }

    fn require_selection(&self, selection: SelectionRequest, empty: WhenEmpty) -> Result<SelectionRequest> {
        if self.all && !selection.names.is_empty() {
            return Err(CommandFailure::usage_error("--all cannot be combined with names of tenants"));
        }
        let is_empty = selection.names.is_empty() && selection.selectors.is_empty() && selection.server.is_none();
        if is_empty && !self.all && empty == WhenEmpty::Refuse {
            return Err(CommandFailure::usage_error("no tenant is selected")
                .with_cause("a command on tenants never selects all of them by default")
                .try_next("name the tenants, or use -l k=v, --server S, --from-file F, or --all"));
        }
        Ok(SelectionRequest { all: is_empty, allow_empty: self.allow_empty, ..selection })
    }
}

/// True when the selection is more than a list of names, so that the command does not show its size.
pub(crate) fn is_open_ended(selection: &SelectionRequest) -> bool {
    selection.names.is_empty()
}

/// The labels as the API expects them.
pub(crate) fn label_map(labels: Option<&LabelPairs>) -> BTreeMap<String, String> {
    labels.into_iter().flatten().cloned().collect()
}

/// A number of a flag as the API expects it.
///
/// # Errors
/// A usage error with the range, if the number is not in it.
pub(crate) fn in_range<const MIN: u64, const MAX: u64>(
    flag: &str,
    number: Option<u64>,
) -> Result<Option<BoundedNumber<MIN, MAX>>> {
    let refused = |number| CommandFailure::usage_error(format!("{flag} must be {MIN} to {MAX}, not {number}"));
    number.map(|number| BoundedNumber::new(number).ok_or_else(|| refused(number))).transpose()
}

/// Parses `k=v,k2=v2`.
pub(crate) fn parse_labels(text: &str) -> Result<LabelPairs, String> {
    let pair = |part: &str| match part.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("{part:?} is not of the form key=value")),
    };
    text.split(',').map(pair).collect()
}

/// Flags for waiting for an operation.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct WaitArgs {
    /// Print the operation's id and return at once
    #[arg(long, conflicts_with = "timeout", help_heading = "Waiting")]
    pub(crate) no_wait: bool,
    /// Stop waiting after this long (exit 6); the operation continues
    #[arg(long, value_name = "DURATION", value_parser = crate::setting_values::parse_duration, help_heading = "Waiting")]
    pub(crate) timeout: Option<Duration>,
}

/// Flags of every changing command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ChangeArgs {
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Reason, for the audit log
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// Flags of commands that are hard to undo.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfirmArgs {
    /// Do not ask for confirmation
    #[arg(short = 'y', long, help_heading = "Confirmation")]
    pub(crate) yes: bool,
    /// Refuse unless exactly this many tenants are selected
    #[arg(long, value_name = "N", help_heading = "Confirmation")]
    pub(crate) expect_count: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs() {
        assert_eq!(
            parse_labels("plan=pro, region=eu"),
            Ok(vec![("plan".into(), "pro".into()), ("region".into(), "eu".into())])
        );
        assert_eq!(parse_labels("note="), Ok(vec![("note".into(), String::new())]));
        for wrong in ["", "plan", "=x", "a=b,"] {
            assert!(parse_labels(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn selecting_nothing_is_refused_or_means_all() {
        let none = SelectionArgs::default();
        let nothing = SelectionRequest::default();
        assert!(none.require_selection(nothing.clone(), WhenEmpty::All).unwrap().all);
        assert!(none.require_selection(nothing.clone(), WhenEmpty::Refuse).is_err());
        let all = SelectionArgs { all: true, ..SelectionArgs::default() };
        assert!(all.require_selection(nothing.clone(), WhenEmpty::Refuse).unwrap().all);
        let named = SelectionRequest { names: vec!["a".to_owned()], ..nothing };
        assert!(all.require_selection(named.clone(), WhenEmpty::Refuse).is_err());
        let named = none.require_selection(named, WhenEmpty::Refuse).unwrap();
        assert!(!named.all && !is_open_ended(&named));
    }

    #[test]
    fn a_number_out_of_range_is_refused_with_its_range() {
        assert!(in_range::<1, 128>("--concurrency", None).unwrap().is_none());
        assert_eq!(in_range::<1, 128>("--concurrency", Some(128)).unwrap().map(BoundedNumber::get), Some(128));
        let refused = in_range::<1, 128>("--concurrency", Some(129)).unwrap_err();
        assert_eq!(refused.what, "--concurrency must be 1 to 128, not 129");
    }
}
