//! Filling a database from a dump, in the order that its functions need.
//!
//! `pg_restore` runs once for each section of the dump, with the settings of the sessions that write (`tool.rs`) and with
//! their search path (`archive.rs`), so functions that name tables and other functions without a schema find them. A
//! dump knows only the dependencies that the server recorded. What a function's text uses is none of them, so an entry
//! that fails is tried again after the others, as long as that makes fewer fail. Checks that call functions may look at
//! other rows: they are taken off before the rows come in, and put back behind them.
//!
//! Everything runs as the login that migrates: SQL of a dump never has more rights than a migration.

use std::path::Path;

use super::checks::{Check, Owner};
use super::complaints::Complaints;
use super::failure::{EXTENSION_CURE, is_of_extension};
use super::locale::Locale;
use super::prepare::OWNER;
use super::site::Site;
use super::tool::{self, Who};
use super::{PostgresEngine, archive, checks, generated, grants};
use crate::error::{Error, ErrorKind, Result};

/// Which entries of a dump are restored, as the lines of a list that `pg_restore` reads.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Types, functions, tables.
    pub(super) before: Vec<String>,
    /// Rows and the values of sequences.
    pub(super) data: Vec<String>,
    /// Indexes, constraints, triggers, and the rows of materialized views.
    pub(super) after: Vec<String>,
    /// What is left out where our roles may not make it.
    pub(super) optional: Vec<String>,
    /// The rights on all of it; `None` for a database from outside, whose roles mean nothing here.
    pub(super) grants: Option<Vec<String>>,
    /// Of the database that was dumped.
    pub(super) locale: Locale,
}

/// A dump that was examined, and the empty database it goes into.
pub(super) struct Load<'a> {
    pub(super) engine: &'a PostgresEngine,
    pub(super) site: &'a Site,
    pub(super) database: &'a str,
    pub(super) dump: &'a Path,
}

impl Load<'_> {
    /// Restores all of it, and returns what was left out.
    ///
    /// # Errors
    /// [`ErrorKind::NotRestorable`] naming the first object that the server refuses; faults of the server.
    pub(super) async fn run(&self, contents: &Contents) -> Result<Vec<String>> {
        self.section(&contents.before).await?;
        let mut checks = checks::take_off(self.site, self.database, Owner::Table).await?;
        let (first, late) = generated::apart(self.site, self.database, &contents.data).await?;
        for entries in [first, late] {
            checks.extend(self.rows(&entries).await?);
        }
        let mut left_out = checks::put_back(self.site, self.database, &checks).await?;
        left_out.extend(self.behind_rows(&contents.after).await?);
        left_out.extend(self.optional(&contents.optional).await?);
        if let Some(grants) = &contents.grants {
            left_out.extend(grants::give(self, grants).await?);
        }
        Ok(left_out)
    }

    /// Restores the rows. Returns the checks of domains that were in their way and are off now.
    async fn rows(&self, entries: &[String]) -> Result<Vec<Check>> {
        let Some((left, complaints)) = self.rounds(entries).await? else { return Ok(Vec::new()) };
        let domains = checks::take_off(self.site, self.database, Owner::Domain).await?;
        if domains.is_empty() {
            return Err(self.refused(&complaints).await);
        }
        self.section(&left).await?;
        Ok(domains)
    }

    /// Restores what comes behind the rows. Returns the checks among it that the rows break.
    async fn behind_rows(&self, entries: &[String]) -> Result<Vec<String>> {
        let Some((left, complaints)) = self.rounds(entries).await? else { return Ok(Vec::new()) };
        let (late, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|entry| checks::is_check(entry));
        if late.is_empty() {
            return Err(self.refused(&complaints).await);
        }
        let late = checks::in_dump(self, &late).await?;
        let not_valid = checks::put_back(self.site, self.database, &late).await?;
        self.section(&others).await?;
        Ok(not_valid)
    }

    async fn section(&self, entries: &[String]) -> Result<()> {
        match self.rounds(entries).await? {
            None => Ok(()),
            Some((_, complaints)) => Err(self.refused(&complaints).await),
        }
    }

    /// Round after round, each with the entries that failed in the round before. Returns the entries that go on to fail.
    async fn rounds(&self, entries: &[String]) -> Result<Option<(Vec<String>, Complaints)>> {
        let mut left: Vec<&str> = entries.iter().map(String::as_str).collect();
        while !left.is_empty() {
            let Some(complaints) = self.restore(&left).await? else { return Ok(None) };
            let failed: Vec<&str> = left.iter().copied().filter(|entry| complaints.is_about(entry)).collect();
            if failed.is_empty() || is_fault(&complaints) {
                return Err(self.refused(&complaints).await);
            }
            if failed.len() == left.len() {
                return Ok(Some((failed.into_iter().map(str::to_owned).collect(), complaints)));
            }
            left = failed;
        }
        Ok(None)
    }

    /// One by one: each has its own reason.
    async fn optional(&self, entries: &[String]) -> Result<Vec<String>> {
        let mut left_out = Vec::new();
        for entry in entries {
            let Some(complaints) = self.restore(&[entry]).await? else { continue };
            if is_fault(&complaints) || complaints.entry().is_none() {
                return Err(self.refused(&complaints).await);
            }
            // The comment of an extension from the template belongs to who made it there; comparing the objects tells if
            // it differs.
            let of_template = complaints.reason().is_some_and(|reason| reason.contains("must be owner of extension"));
            left_out.extend(complaints.told().filter(|_| !of_template));
        }
        Ok(left_out)
    }

    /// Restores these entries; what it complains about when some failed.
    async fn restore(&self, entries: &[&str]) -> Result<Option<Complaints>> {
        let (mut file, list) = archive::create(self.engine.scratch())?;
        archive::write(&mut file, (entries.join("\n") + "\n").as_bytes()).await?;
        let mut command = self.engine.tools().connecting("pg_restore", &self.site.server, Who::Migrator, self.database);
        command.args(["--verbose", "--no-owner", "--no-acl", "--no-tablespaces"]);
        command.args(["--no-subscriptions", "--no-password"]).arg(format!("--role={OWNER}"));
        command.arg("--dbname").arg(self.database).arg("--use-list").arg(&*list).arg(self.dump);
        let child = tool::start(&mut command)?;
        let mut complaints = Complaints::default();
        let status = tool::finish_telling(&self.site.server, child, |line| complaints.take(line)).await?;
        Ok((!status.success()).then_some(complaints))
    }

    /// The dump was whole, so either the server is in trouble, or it refuses what the dump holds.
    async fn refused(&self, complaints: &Complaints) -> Error {
        let reason = complaints.reason().unwrap_or("pg_restore gave no reason");
        let object = complaints.entry().map_or_else(String::new, |entry| format!(" at {entry}"));
        let cure = if is_of_extension(reason) { EXTENSION_CURE } else { "" };
        let message = format!("the dump could not be restored{object}: {reason}{cure}");
        let kind = match self.site.center().await {
            Err(error) => error.kind(),
            Ok(center) => {
                self.site.leave(center);
                kind(reason, complaints.entry().is_some())
            }
        };
        Error::new(kind, message)
    }
}

/// PURE: a reason in which another round is in vain, and may meet what was done although it was told to have failed.
fn is_fault(complaints: &Complaints) -> bool {
    complaints
        .reason()
        .is_some_and(|reason| kind(reason, true) != ErrorKind::NotRestorable && !reason.contains("permission denied"))
}

fn kind(reason: &str, of_an_entry: bool) -> ErrorKind {
    match reason {
        _ if reason.contains("No space left") => ErrorKind::DiskFull,
        _ if reason.contains("permission denied") => ErrorKind::ServerPrivilege,
        _ if reason.contains("connection") => ErrorKind::ConnectionLost,
        _ if of_an_entry => ErrorKind::NotRestorable,
        _ => ErrorKind::Internal,
    }
}
