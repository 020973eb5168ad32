//! The tables `[[jwt]]` of a settings file: the issuers whose JSON Web Tokens the data API accepts.
//!
//! `settings.rs` reads the file, and every command checks the keys of the tables. Only a command that serves makes
//! issuers of them, and reads the files that they name. An error names the file, the table's number and the key.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use control_plane::ErrorKind;
use tenant_router::jwt::{JwtIssuer, JwtVerifier, SigningAlgorithms};

use crate::error::{CommandFailure, Result};
use crate::settings::read_secret;

/// The keys of a table.
const KEYS: [&str; 8] = [
    "issuer",
    "audience",
    "algorithms",
    "jwks_url",
    "public_key_file",
    "secret_file",
    "tenant_claim",
    "principal_prefix",
];
/// The keys that say where the keys of an issuer are. A table has one of them.
const SOURCES: [&str; 3] = ["jwks_url", "public_key_file", "secret_file"];

/// A longer file is not a public key.
const PUBLIC_KEY_BYTES_MAX: u64 = 65_536;

/// All tables of one file, in its order.
#[derive(Debug, Clone, Default)]
pub(crate) struct IssuerTables {
    file: PathBuf,
    tables: Vec<IssuerTable>,
}

/// One table: its texts by their keys.
#[derive(Debug, Clone)]
struct IssuerTable {
    /// Its position in the file, from 1.
    number: usize,
    values: BTreeMap<&'static str, String>,
}

/// What is wrong in a table.
#[derive(Debug)]
struct TableFault {
    key: String,
    why: String,
}

impl TableFault {
    fn new(key: &str, why: impl fmt::Display) -> Self {
        Self { key: key.to_owned(), why: why.to_string() }
    }
}

impl IssuerTables {
    /// Reads the value of the key `jwt`.
    pub(crate) fn read_tables(file: &Path, value: &toml::Value) -> Result<Self> {
        let mut out = Self { file: file.to_owned(), tables: Vec::new() };
        let tables: Option<Vec<_>> = value.as_array().and_then(|all| all.iter().map(toml::Value::as_table).collect());
        let Some(tables) = tables else {
            return Err(out.refusal("jwt must be written as [[jwt]], once for each issuer"));
        };
        for (at, table) in tables.into_iter().enumerate() {
            let number = at + 1;
            let values = table.iter().map(|(key, value)| read_value(key, value)).collect::<Result<_, _>>();
            let values = values.map_err(|fault| out.table_refusal(number, &fault))?;
            out.tables.push(IssuerTable { number, values });
        }
        Ok(out)
    }

    /// The file that has the tables.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// All keys, as `jwt[1].issuer`, with their values.
    pub(crate) fn shown_values(&self) -> impl Iterator<Item = (String, &str)> {
        self.tables.iter().flat_map(|table| {
            let name = move |key: &str| format!("jwt[{}].{key}", table.number);
            KEYS.iter().filter_map(move |key| Some((name(key), table.get(key)?)))
        })
    }

    /// The issuers of the tables. Reads the files that they name, relative to `directory`.
    pub(crate) fn read_issuers(&self, directory: &Path) -> Result<Vec<JwtIssuer>> {
        let mut issuers = Vec::new();
        for table in &self.tables {
            let issuer = table.read_issuer(directory).and_then(|issuer| check_against(&issuers, issuer));
            issuers.push(issuer.map_err(|fault| self.table_refusal(table.number, &fault))?);
        }
        Ok(issuers)
    }

    fn table_refusal(&self, number: usize, fault: &TableFault) -> CommandFailure {
        self.refusal(format!("[[jwt]] table {number}: {}: {}", fault.key, fault.why))
    }

    fn refusal(&self, why: impl fmt::Display) -> CommandFailure {
        CommandFailure::usage_error(format!("cannot use the settings in {}", self.file.display()))
            .with_cause(why)
            .code(ErrorKind::JwtInvalid.code())
            .try_next("correct the table; docs/configuration.md has an example")
    }
}

impl IssuerTable {
    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    fn require(&self, key: &str) -> Result<&str, TableFault> {
        self.get(key).ok_or_else(|| TableFault::new(key, "it is missing"))
    }

    /// The issuer of this table, checked alone.
    fn read_issuer(&self, directory: &Path) -> Result<JwtIssuer, TableFault> {
        let (name, audience) = (self.require("issuer")?, self.require("audience")?);
        let algorithms = parse_algorithms(self.require("algorithms")?)?;
        let source = self.find_source()?;
        let value = self.require(source)?;
        let at = directory.join(value);
        let issuer = match (source, algorithms) {
            ("jwks_url", Some(algorithms)) => JwtIssuer::with_jwks(name, audience, algorithms, value),
            ("public_key_file", Some(algorithms)) => {
                JwtIssuer::with_public_key(name, audience, algorithms, read_public_key(&at).map_err(fault_of(source))?)
            }
            ("secret_file", None) => {
                require_private(&at).map_err(fault_of(source))?;
                JwtIssuer::with_secret(name, audience, read_secret(&at).map_err(fault_of(source))?)
            }
            (_, None) => return Err(TableFault::new("algorithms", "hmac needs secret_file")),
            (_, Some(_)) => return Err(TableFault::new("algorithms", "it must be hmac, because of secret_file")),
        };
        let issuer = self.get("tenant_claim").into_iter().fold(issuer, JwtIssuer::tenant_claim);
        let issuer = self.get("principal_prefix").into_iter().fold(issuer, JwtIssuer::principal_prefix);
        // Everything else is checked above, so that only the keys can be wrong.
        JwtVerifier::new([issuer.clone()]).map_err(|error| TableFault::new(source, error))?;
        Ok(issuer)
    }

    /// The key that says where the issuer's keys are.
    fn find_source(&self) -> Result<&'static str, TableFault> {
        let mut given = SOURCES.into_iter().filter(|source| self.values.contains_key(source));
        match (given.next(), given.next()) {
            (Some(source), None) => Ok(source),
            (Some(one), Some(two)) => Err(TableFault::new(two, format!("only one of {one} and {two} is allowed"))),
            (None, _) => Err(TableFault::new(SOURCES[0], format!("it is missing; set one of {}", SOURCES.join(", ")))),
        }
    }
}

/// Accepts known keys and texts only.
fn read_value(key: &str, value: &toml::Value) -> Result<(&'static str, String), TableFault> {
    let Some(known) = KEYS.into_iter().find(|known| *known == key) else {
        let advice = match key {
            "secret" => "a secret is not allowed in this file; use secret_file".to_owned(),
            _ => format!("this key does not exist; the keys are {}", KEYS.join(", ")),
        };
        return Err(TableFault::new(key, advice));
    };
    match value.as_str() {
        None => Err(TableFault::new(key, "it must be a text")),
        Some("") => Err(TableFault::new(key, "it is empty")),
        Some(text) => Ok((known, text.to_owned())),
    }
}

/// `None` for `hmac`, whose key is a secret and not a public key.
fn parse_algorithms(text: &str) -> Result<Option<SigningAlgorithms>, TableFault> {
    match text {
        "rsa" => Ok(Some(SigningAlgorithms::Rsa)),
        "ecdsa" => Ok(Some(SigningAlgorithms::Ecdsa)),
        "ed25519" => Ok(Some(SigningAlgorithms::Ed25519)),
        "hmac" => Ok(None),
        _ => Err(TableFault::new("algorithms", format!("expected rsa, ecdsa, ed25519 or hmac, not {text:?}"))),
    }
}

/// Refuses an issuer that is named twice, and one whose members could have the names of another one's.
fn check_against(issuers: &[JwtIssuer], issuer: JwtIssuer) -> Result<JwtIssuer, TableFault> {
    for (at, other) in issuers.iter().enumerate() {
        let number = at + 1;
        if other.name() == issuer.name() {
            return Err(TableFault::new("issuer", format!("it is the issuer of table {number} already")));
        }
        if other.may_share_members(&issuer) {
            let why = format!("it must not begin with the principal_prefix of table {number}, nor the other way round");
            return Err(TableFault::new("principal_prefix", why));
        }
    }
    Ok(issuer)
}

fn read_public_key(file: &Path) -> Result<String, String> {
    let unusable = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(unusable)?;
    opened.take(PUBLIC_KEY_BYTES_MAX + 1).read_to_string(&mut text).map_err(unusable)?;
    match text.len() as u64 > PUBLIC_KEY_BYTES_MAX {
        true => Err(format!("{} has more than {PUBLIC_KEY_BYTES_MAX} bytes", file.display())),
        false => Ok(text),
    }
}

/// Refuses a file that other users can read or change: anyone who knows the secret can make tokens.
fn require_private(file: &Path) -> Result<(), String> {
    let found = std::fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?;
    match found.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => Err(format!("other users can read {0}; run: chmod 600 {0}", file.display())),
    }
}

fn fault_of(key: &'static str) -> impl Fn(String) -> TableFault {
    move |why| TableFault::new(key, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_explains_every_key_and_its_example_is_accepted() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let document = std::fs::read_to_string(root.join("docs/configuration.md")).unwrap();
        for key in KEYS {
            assert!(document.contains(&format!("\n- `{key}`: ")), "{key}");
        }
        let mut blocks = document.split("```toml\n").skip(1).filter_map(|block| block.split("```").next());
        let example: toml::Table = blocks.find(|block| block.contains("[[jwt]]")).unwrap().parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tables = IssuerTables::read_tables(Path::new("fleet.toml"), &example["jwt"]).unwrap();
        let refused = tables.read_issuers(dir.path()).unwrap_err();
        assert!(refused.causes[0].contains("table 2: secret_file: /etc/fleet"), "{refused:?}");
    }
}
