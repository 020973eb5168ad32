//! Flags that several commands share: which tenants, whether to wait, whether to ask.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::error::{Failure, Result};
use crate::input;

/// Which tenants. Given ones combine: a tenant must meet all of them.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Selection {
    /// Tenants whose labels meet this: k=v, k!=v, 'k in (a,b)', 'k notin (a,b)', k, '!k'; commas and repeats mean "and"
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
pub(crate) type Labels = Vec<(String, String)>;

/// What a command does when no tenant was selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenEmpty {
    /// A reading command: all of them.
    All,
    /// A changing command, or a query: nothing, and say so.
    Refuse,
}

impl Selection {
    /// As the API takes it.
    pub(crate) fn resolve(&self, names: &[String], context: &mut Context, empty: WhenEmpty) -> Result<Value> {
        let mut names = names.to_vec();
        if let Some(file) = &self.from_file {
            names.extend(input::listed(file, context)?);
        }
        let mut out = Map::new();
        if !names.is_empty() {
            out.insert("names".into(), json!(names));
        }
        if !self.selectors.is_empty() {
            out.insert("selectors".into(), json!(self.selectors));
        }
        if let Some(server) = &self.server {
            out.insert("server".into(), json!(server));
        }
        self.with_all(out, empty)
    }

    fn with_all(&self, mut out: Map<String, Value>, empty: WhenEmpty) -> Result<Value> {
        if self.all && out.contains_key("names") {
            return Err(Failure::usage("--all and names of tenants exclude each other"));
        }
        if out.is_empty() && !self.all && empty == WhenEmpty::Refuse {
            return Err(Failure::usage("no tenant is selected")
                .because("a command that acts on tenants never means all of them silently")
                .try_next("name the tenants, or use -l k=v, --server S, --from-file F, or --all"));
        }
        if out.is_empty() {
            out.insert("all".into(), json!(true));
        }
        if self.allow_empty {
            out.insert("allow_empty".into(), json!(true));
        }
        Ok(Value::Object(out))
    }
}

/// True when a selection is more than a list of names: its size is not visible in the command.
pub(crate) fn is_open_ended(selection: &Value) -> bool {
    selection.get("names").is_none()
}

pub(crate) fn pairs(labels: &Labels) -> Value {
    Value::Object(labels.iter().map(|(k, v)| (k.clone(), json!(v))).collect())
}

/// `k=v,k2=v2`.
pub(crate) fn labels(text: &str) -> Result<Labels, String> {
    let pair = |part: &str| match part.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("{part:?} is not of the form key=value")),
    };
    text.split(',').map(pair).collect()
}

/// How a command treats the operation it starts.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Wait {
    /// Print the operation's id and return at once
    #[arg(long, conflicts_with = "timeout", help_heading = "Waiting")]
    pub(crate) no_wait: bool,
    /// Stop waiting after this long (exit 6); the operation goes on
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::duration, help_heading = "Waiting")]
    pub(crate) timeout: Option<Duration>,
}

/// What every changing command takes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Change {
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// What a command takes that cannot simply be taken back.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Confirm {
    /// Do not ask
    #[arg(short = 'y', long, help_heading = "Confirmation")]
    pub(crate) yes: bool,
    /// Refuse unless exactly this many tenants are meant
    #[arg(long, value_name = "N", help_heading = "Confirmation")]
    pub(crate) expect_count: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs() {
        assert_eq!(
            labels("plan=pro, region=eu"),
            Ok(vec![("plan".into(), "pro".into()), ("region".into(), "eu".into())])
        );
        assert_eq!(labels("note="), Ok(vec![("note".into(), String::new())]));
        for wrong in ["", "plan", "=x", "a=b,"] {
            assert!(labels(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn selecting_nothing_is_refused_or_means_all() {
        let none = Selection::default();
        assert_eq!(none.with_all(Map::new(), WhenEmpty::All).unwrap(), json!({"all": true}));
        assert!(none.with_all(Map::new(), WhenEmpty::Refuse).is_err());
        let all = Selection { all: true, ..Selection::default() };
        assert_eq!(all.with_all(Map::new(), WhenEmpty::Refuse).unwrap(), json!({"all": true}));
        let named = Map::from_iter([("names".to_owned(), json!(["a"]))]);
        assert!(all.with_all(named.clone(), WhenEmpty::Refuse).is_err());
        assert!(!is_open_ended(&none.with_all(named, WhenEmpty::Refuse).unwrap()));
    }
}
