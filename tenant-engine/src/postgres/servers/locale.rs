//! PURE: the sort order and encoding of a database, from the `create database` statement in its dump.
//!
//! A copy gets an equal provider and locale, or is refused. Otherwise text would sort and compare differently, and a
//! unique index or a partition might not accept the rows. The text comes from a dump, so only known keywords and plain
//! values are taken from it.

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::sql::sql_literal;

/// The locale for a copy; empty for the server's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::postgres) struct DatabaseLocale {
    /// Options for `create database`, as SQL.
    options: String,
}

impl DatabaseLocale {
    pub(super) fn create_options(&self) -> &str {
        &self.options
    }

    /// Parses the script that `pg_restore --create` writes; empty when the dump does not tell.
    ///
    /// # Errors
    /// [`ErrorKind::NotRestorable`] for an encoding other than UTF-8, and for options that this program does not know.
    pub(in crate::postgres) fn in_script(script: &str) -> Result<Self> {
        let begin = |line: &&str| line.starts_with("CREATE DATABASE ");
        let Some(statement) = script.lines().find(begin) else { return Ok(Self::default()) };
        // The last match counts, because the name of the database may hold any text.
        let Some((_, options)) = statement.rsplit_once(" WITH TEMPLATE = template0 ENCODING = '") else {
            return Ok(Self::default());
        };
        let unknown = || locale_refused("the dump's 'create database' has options that this program does not know");
        let (encoding, rest) = options.split_once('\'').ok_or_else(unknown)?;
        if encoding != "UTF8" {
            let message = format!(
                "the encoding of the database is {encoding}; a tenant's is UTF8 (copy it to a database with UTF8 first, \
                 which shows texts that are not valid)"
            );
            return Err(locale_refused(&message));
        }
        let mut options = String::new();
        let mut rest = rest.trim().strip_suffix(';').ok_or_else(unknown)?.trim();
        while !rest.is_empty() {
            let (option, after) = parse_option(rest).ok_or_else(unknown)?;
            options.push_str(&option);
            rest = after.trim_start();
        }
        Ok(Self { options })
    }
}

/// The next option, as SQL writes it, and the rest of the text.
fn parse_option(text: &str) -> Option<(String, &str)> {
    let (name, rest) = text.split_once(" = ")?;
    match name {
        "LOCALE_PROVIDER" => {
            let (provider, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            ["libc", "icu", "builtin"].contains(&provider).then(|| (format!(" locale_provider {provider}"), rest))
        }
        "LOCALE" | "LC_COLLATE" | "LC_CTYPE" | "ICU_LOCALE" | "ICU_RULES" | "BUILTIN_LOCALE" => {
            let (value, rest) = rest.strip_prefix('\'')?.split_once('\'')?;
            // A doubled quote would end the value in its middle, so such a value is not accepted.
            let plain = !value.contains('\\') && !rest.starts_with('\'');
            plain.then(|| (format!(" {} {}", name.to_lowercase(), sql_literal(value)), rest))
        }
        _ => None,
    }
}

fn locale_refused(why: &str) -> Error {
    Error::new(ErrorKind::NotRestorable, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(tail: &str) -> Result<String> {
        let script = format!("SET x = 1;\n\nCREATE DATABASE d WITH TEMPLATE = template0 ENCODING = {tail}\nALTER x;");
        DatabaseLocale::in_script(&script).map(|locale| locale.options)
    }

    #[test]
    fn every_form_of_the_option_is_read() {
        assert_eq!(options("'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C';").unwrap(), " locale_provider libc locale 'C'");
        let icu = options("'UTF8' LOCALE_PROVIDER = icu LC_COLLATE = 'C' LC_CTYPE = 'C.UTF-8' ICU_LOCALE = 'de-AT';");
        assert_eq!(icu.unwrap(), " locale_provider icu lc_collate 'C' lc_ctype 'C.UTF-8' icu_locale 'de-AT'");
        assert_eq!(options("'UTF8';").unwrap(), "");
        assert_eq!(DatabaseLocale::in_script("SELECT 1;").unwrap(), DatabaseLocale::default());
    }

    #[test]
    fn nothing_else_is_taken_from_a_dump() {
        for tail in [
            "'SQL_ASCII' LOCALE = 'C';",
            "'UTF8' LOCALE = 'C' OWNER = 'x';",
            "'UTF8' LOCALE = 'a''b';",
            "'UTF8' LOCALE_PROVIDER = libc; drop table x;",
            "'UTF8' LOCALE = 'C'; select 1",
            "'UTF8' LOCALE = 'C\\';",
        ] {
            assert_eq!(options(tail).unwrap_err().kind(), ErrorKind::NotRestorable, "{tail}");
        }
    }
}
