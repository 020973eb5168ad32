//! Fills a database from a dump, in the order that its functions need.
//!
//! `pg_restore` runs once for each section of the dump, with the settings (`programs.rs`) and the search path
//! (`archive.rs`) of the sessions that write. So functions that name tables and other functions without a schema find
//! them. A dump knows only the dependencies that the server recorded, and these do not include the objects in a
//! function's text. So an entry that fails is tried again after the others, as long as each round has fewer failures.
//! Checks that call functions may read other rows: they are dropped before the rows are loaded, and added again
//! afterwards.
//!
//! Everything runs as the login that migrates: the SQL of a dump never has more rights than a migration.

use std::path::Path;

use super::checks::{CheckConstraint, ConstraintOwner};
use super::programs::{self, ToolLogin};
use super::restore_complaints::RestoreComplaints;
use super::{archive, checks, generated, grants};
use crate::error::{Error, ErrorKind, Result};
use crate::migration::LedgerName;
use crate::own_tables::own_table_names;
use crate::postgres::PostgresEngine;
use crate::postgres::migrations::failure::{EXTENSION_CURE, is_of_extension};
use crate::postgres::servers::locale::DatabaseLocale;
use crate::postgres::servers::prepare::OWNER;
use crate::postgres::servers::server_state::PostgresServerState;

/// The entries of a dump that are restored, as lines of a list that `pg_restore` reads.
#[derive(Debug, Default)]
pub(in crate::postgres) struct DumpContents {
    /// Types, functions and tables.
    pub(super) before: Vec<String>,
    /// Rows and the values of sequences.
    pub(super) data: Vec<String>,
    /// Indexes, constraints, triggers, and the rows of materialized views.
    pub(super) after: Vec<String>,
    /// Entries that are left out where the fleet's roles may not make them.
    pub(super) optional: Vec<String>,
    /// The rights on all objects; `None` for a database from outside, whose roles have no meaning here.
    pub(in crate::postgres) grants: Option<Vec<String>>,
    /// Text order of the database that was dumped.
    pub(in crate::postgres) locale: DatabaseLocale,
    /// Name of its ledger.
    pub(in crate::postgres) ledger: LedgerName,
}

impl DumpContents {
    /// Whether the dump has rows of the fleet's own tables. A dump of a database without jobs does not.
    pub(in crate::postgres) fn has_own_tables(&self) -> bool {
        let is_own =
            |line: &String| own_table_names().any(|name| line.contains(&format!(" TABLE DATA public {name} ")));
        self.data.iter().any(is_own)
    }
}

/// An examined dump, and the empty database that it is loaded into.
pub(in crate::postgres) struct DumpLoad<'a> {
    pub(in crate::postgres) engine: &'a PostgresEngine,
    pub(in crate::postgres) site: &'a PostgresServerState,
    pub(in crate::postgres) database: &'a str,
    pub(in crate::postgres) dump: &'a Path,
}

impl DumpLoad<'_> {
    /// Restores all entries, and returns a description of those that were left out.
    ///
    /// # Errors
    /// [`ErrorKind::NotRestorable`] naming the first object that the server refuses; faults of the server.
    pub(in crate::postgres) async fn restore_all(&self, contents: &DumpContents) -> Result<Vec<String>> {
        self.restore_section(&contents.before).await?;
        let mut checks = checks::take_off(self.site, self.database, ConstraintOwner::Table).await?;
        let (first, late) = generated::separate_entries(self.site, self.database, &contents.data).await?;
        for entries in [first, late] {
            checks.extend(self.restore_rows(&entries).await?);
        }
        let mut left_out = checks::put_back(self.site, self.database, &checks).await?;
        left_out.extend(self.behind_rows(&contents.after).await?);
        left_out.extend(self.restore_optional(&contents.optional).await?);
        if let Some(grants) = &contents.grants {
            left_out.extend(grants::give_grants(self, grants).await?);
        }
        Ok(left_out)
    }

    /// Restores the rows. Returns the checks of domains that blocked rows and are now dropped.
    async fn restore_rows(&self, entries: &[String]) -> Result<Vec<CheckConstraint>> {
        let Some((left, complaints)) = self.restore_rounds(entries).await? else { return Ok(Vec::new()) };
        let domains = checks::take_off(self.site, self.database, ConstraintOwner::Domain).await?;
        if domains.is_empty() {
            return Err(self.refusal_error(&complaints).await);
        }
        self.restore_section(&left).await?;
        Ok(domains)
    }

    /// Restores the entries that follow the rows. Returns the checks among them that the rows violate.
    async fn behind_rows(&self, entries: &[String]) -> Result<Vec<String>> {
        let Some((left, complaints)) = self.restore_rounds(entries).await? else { return Ok(Vec::new()) };
        let (late, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|entry| checks::is_check(entry));
        if late.is_empty() {
            return Err(self.refusal_error(&complaints).await);
        }
        let late = checks::in_dump(self, &late).await?;
        let not_valid = checks::put_back(self.site, self.database, &late).await?;
        self.restore_section(&others).await?;
        Ok(not_valid)
    }

    async fn restore_section(&self, entries: &[String]) -> Result<()> {
        match self.restore_rounds(entries).await? {
            None => Ok(()),
            Some((_, complaints)) => Err(self.refusal_error(&complaints).await),
        }
    }

    /// Restores in rounds, each with the entries that failed in the round before. Returns the entries that still fail.
    async fn restore_rounds(&self, entries: &[String]) -> Result<Option<(Vec<String>, RestoreComplaints)>> {
        let mut left: Vec<&str> = entries.iter().map(String::as_str).collect();
        while !left.is_empty() {
            let Some(complaints) = self.restore_entries(&left).await? else { return Ok(None) };
            let failed: Vec<&str> = left.iter().copied().filter(|entry| complaints.is_about(entry)).collect();
            if failed.is_empty() || is_fault(&complaints) {
                return Err(self.refusal_error(&complaints).await);
            }
            if failed.len() == left.len() {
                return Ok(Some((failed.into_iter().map(str::to_owned).collect(), complaints)));
            }
            left = failed;
        }
        Ok(None)
    }

    /// Restores these entries one by one, because each has its own reason to fail.
    async fn restore_optional(&self, entries: &[String]) -> Result<Vec<String>> {
        let mut left_out = Vec::new();
        for entry in entries {
            let Some(complaints) = self.restore_entries(&[entry]).await? else { continue };
            if is_fault(&complaints) || complaints.failed_entry().is_none() {
                return Err(self.refusal_error(&complaints).await);
            }
            // The comment of an extension from the template belongs to the role that made it there. The comparison of
            // the objects shows whether it differs.
            let of_template =
                complaints.first_reason().is_some_and(|reason| reason.contains("must be owner of extension"));
            left_out.extend(complaints.first_failure().filter(|_| !of_template));
        }
        Ok(left_out)
    }

    /// Restores these entries; returns the complaints when some failed.
    async fn restore_entries(&self, entries: &[&str]) -> Result<Option<RestoreComplaints>> {
        let (mut file, list) = archive::create_scratch_file(self.engine.scratch_directory())?;
        archive::write_scratch_file(&mut file, (entries.join("\n") + "\n").as_bytes()).await?;
        let mut command = self.engine.postgres_tools().connecting_command(
            "pg_restore",
            &self.site.server,
            ToolLogin::Migrator,
            self.database,
        );
        command.args(["--verbose", "--no-owner", "--no-acl", "--no-tablespaces"]);
        command.args(["--no-subscriptions", "--no-password"]).arg(format!("--role={OWNER}"));
        command.arg("--dbname").arg(self.database).arg("--use-list").arg(&*list).arg(self.dump);
        let child = programs::start_program(&mut command)?;
        let mut complaints = RestoreComplaints::default();
        let status = programs::finish_telling(&self.site.server, child, |line| complaints.take_line(line)).await?;
        Ok((!status.success()).then_some(complaints))
    }

    /// The dump was complete, so either the server has a fault, or it refuses an object in the dump.
    async fn refusal_error(&self, complaints: &RestoreComplaints) -> Error {
        let reason = complaints.first_reason().unwrap_or("pg_restore gave no reason");
        let object = complaints.failed_entry().map_or_else(String::new, |entry| format!(" at {entry}"));
        let cure = if is_of_extension(reason) { EXTENSION_CURE } else { "" };
        let message = format!("the dump could not be restored{object}: {reason}{cure}");
        let kind = match self.site.maintenance_connection().await {
            Err(error) => error.kind(),
            Ok(center) => {
                self.site.return_connection(center);
                failure_kind(reason, complaints.failed_entry().is_some())
            }
        };
        Error::new(kind, message)
    }
}

/// PURE: a reason that another round cannot fix, and that may have been reported for an entry that was restored.
fn is_fault(complaints: &RestoreComplaints) -> bool {
    complaints.first_reason().is_some_and(|reason| {
        failure_kind(reason, true) != ErrorKind::NotRestorable && !reason.contains("permission denied")
    })
}

fn failure_kind(reason: &str, of_an_entry: bool) -> ErrorKind {
    match reason {
        _ if reason.contains("No space left") => ErrorKind::DiskFull,
        _ if reason.contains("permission denied") => ErrorKind::ServerPrivilege,
        _ if reason.contains("connection") => ErrorKind::ConnectionLost,
        _ if of_an_entry => ErrorKind::NotRestorable,
        _ => ErrorKind::ToolFailed,
    }
}
