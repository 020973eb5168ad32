//! Parameters of a statement: [`Params`] from nothing, tuples, arrays, vectors and the macro [`params!`](crate::params!).
//!
//! [`IntoSqlValue`] says which Rust types can be parameters. A value that no database can hold (a `u64` above
//! `i64::MAX`) is refused when the statement is run, before anything is sent.

use std::borrow::Cow;

use serde::Serialize;
use tenant_engine::SqlValue;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::json::Json;

/// The positional parameters of one statement, in order: `?1`, `?2` … on SQLite, `$1`, `$2` … on PostgreSQL.
///
/// ```
/// use tenant_router::{Params, params};
///
/// let none = Params::from(());
/// let one = Params::from(("buy milk",));
/// let pair = Params::from((7, Some("buy milk")));
/// let any_number = params![7, "buy milk", None::<i64>, true];
/// # assert_ne!(none, one); assert_ne!(pair, any_number);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    values: Vec<SqlValue>,
    /// Why the first refused value cannot be a parameter.
    refusal: Option<String>,
}

impl Params {
    /// Adds the next parameter.
    #[must_use]
    pub fn with(mut self, value: impl IntoSqlValue) -> Self {
        match value.into_sql_value() {
            Ok(value) => self.values.push(value),
            Err(error) => {
                let number = self.values.len() + 1;
                self.refusal.get_or_insert_with(|| format!("parameter {number}: {error}"));
                self.values.push(SqlValue::Null);
            }
        }
        self
    }

    /// The values, if all of them can be parameters.
    ///
    /// # Errors
    /// `parameter_mismatch` with the position of the first value that cannot.
    pub fn into_values(self) -> Result<Vec<SqlValue>> {
        match self.refusal {
            None => Ok(self.values),
            Some(refusal) => {
                Err(tenant_engine::Error::new(tenant_engine::ErrorKind::ParameterMismatch, refusal).into())
            }
        }
    }
}

/// Makes [`Params`] from any number of values of different types.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { $crate::Params::default()$(.with($value))* };
}

/// A value that cannot be a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterError(String);

impl ParameterError {
    /// An error with this reason, which the error's text shows after the position of the parameter.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl std::fmt::Display for ParameterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParameterError {}

impl From<ParameterError> for Error {
    fn from(error: ParameterError) -> Self {
        Self::new(ErrorKind::Database(tenant_engine::ErrorKind::ParameterMismatch)).with_source(error)
    }
}

/// A Rust type whose values can be parameters.
pub trait IntoSqlValue {
    /// The value as the database gets it.
    ///
    /// # Errors
    /// When no database can hold the value.
    fn into_sql_value(self) -> Result<SqlValue, ParameterError>;
}

impl<T: IntoSqlValue + Clone> IntoSqlValue for &T {
    fn into_sql_value(self) -> Result<SqlValue, ParameterError> {
        self.clone().into_sql_value()
    }
}

impl<T: IntoSqlValue> IntoSqlValue for Option<T> {
    /// `None` is NULL.
    fn into_sql_value(self) -> Result<SqlValue, ParameterError> {
        self.map_or(Ok(SqlValue::Null), IntoSqlValue::into_sql_value)
    }
}

/// Types that every database can hold.
macro_rules! always {
    ($($type:ty => $value:pat => $sql:expr;)*) => {$(
        impl IntoSqlValue for $type {
            fn into_sql_value(self) -> Result<SqlValue, ParameterError> {
                let $value = self;
                Ok($sql)
            }
        }
    )*};
}

always! {
    SqlValue => value => value;
    bool => value => SqlValue::Boolean(value);
    i8 => value => SqlValue::Integer(value.into());
    i16 => value => SqlValue::Integer(value.into());
    i32 => value => SqlValue::Integer(value.into());
    i64 => value => SqlValue::Integer(value);
    u8 => value => SqlValue::Integer(value.into());
    u16 => value => SqlValue::Integer(value.into());
    u32 => value => SqlValue::Integer(value.into());
    f32 => value => SqlValue::Real(shortest_double(value));
    f64 => value => SqlValue::Real(value);
    char => value => SqlValue::Text(value.to_string());
    &str => value => SqlValue::Text(value.to_owned());
    String => value => SqlValue::Text(value);
    Box<str> => value => SqlValue::Text(value.into());
    Cow<'_, str> => value => SqlValue::Text(value.into_owned());
    &[u8] => value => SqlValue::Blob(value.to_vec());
    Vec<u8> => value => SqlValue::Blob(value);
    Uuid => value => SqlValue::Text(value.to_string());
    jiff::Timestamp => value => SqlValue::Text(value.to_string());
    jiff::Zoned => value => SqlValue::Text(value.timestamp().to_string());
    jiff::civil::DateTime => value => SqlValue::Text(value.to_string());
    jiff::civil::Date => value => SqlValue::Text(value.to_string());
    jiff::civil::Time => value => SqlValue::Text(value.to_string());
    serde_json::Value => value => SqlValue::Text(value.to_string());
}

impl<const N: usize> IntoSqlValue for [u8; N] {
    fn into_sql_value(self) -> Result<SqlValue, ParameterError> {
        Ok(SqlValue::Blob(self.to_vec()))
    }
}

impl<T: Serialize> IntoSqlValue for Json<T> {
    fn into_sql_value(self) -> Result<SqlValue, ParameterError> {
        let text = serde_json::to_string(&self.0).map_err(|error| ParameterError(format!("not JSON: {error}")))?;
        Ok(SqlValue::Text(text))
    }
}

/// Integers that may be larger than the 64-bit signed integers of the databases.
macro_rules! fitting {
    ($($type:ty),*) => {$(
        impl IntoSqlValue for $type {
            fn into_sql_value(self) -> Result<SqlValue, ParameterError> {
                let fits = i64::try_from(self).map(SqlValue::Integer);
                fits.map_err(|_| ParameterError("the integer does not fit into 64 bits with a sign".to_owned()))
            }
        }
    )*};
}

fitting!(u64, usize, isize, u128, i128);

/// The double with the fewest digits that gives this value again, so that 0.1 stays 0.1.
fn shortest_double(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

impl From<()> for Params {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl<T: IntoSqlValue> FromIterator<T> for Params {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        values.into_iter().fold(Self::default(), Self::with)
    }
}

impl<T: IntoSqlValue> From<Vec<T>> for Params {
    fn from(values: Vec<T>) -> Self {
        values.into_iter().collect()
    }
}

impl<T: IntoSqlValue, const N: usize> From<[T; N]> for Params {
    fn from(values: [T; N]) -> Self {
        values.into_iter().collect()
    }
}

/// Tuples of up to sixteen values.
macro_rules! tuples {
    ($($first:ident $($name:ident)*;)*) => {$(
        impl<$first: IntoSqlValue, $($name: IntoSqlValue),*> From<($first, $($name,)*)> for Params {
            #[expect(non_snake_case, reason = "each variable has the name of its type")]
            fn from(($first, $($name,)*): ($first, $($name,)*)) -> Self {
                Self::default().with($first)$(.with($name))*
            }
        }
    )*};
}

tuples! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
    A B C D E F G H I;
    A B C D E F G H I J;
    A B C D E F G H I J K;
    A B C D E F G H I J K L;
    A B C D E F G H I J K L M;
    A B C D E F G H I J K L M N;
    A B C D E F G H I J K L M N O;
    A B C D E F G H I J K L M N O P;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_a_value() {
        let bytes: &[u8] = b"ab";
        let values = params![
            1_i8,
            2_u16,
            -3_i32,
            4_u64,
            5_usize,
            0.1_f32,
            true,
            'c',
            "text",
            String::from("own"),
            bytes,
            *b"cd",
            Some(6),
            None::<String>,
            &7_i64,
            SqlValue::Null
        ]
        .into_values()
        .unwrap();
        let text = |text: &str| SqlValue::Text(text.to_owned());
        let expected = [
            SqlValue::Integer(1),
            SqlValue::Integer(2),
            SqlValue::Integer(-3),
            SqlValue::Integer(4),
            SqlValue::Integer(5),
            SqlValue::Real(0.1),
            SqlValue::Boolean(true),
            text("c"),
            text("text"),
            text("own"),
            SqlValue::Blob(b"ab".to_vec()),
            SqlValue::Blob(b"cd".to_vec()),
            SqlValue::Integer(6),
            SqlValue::Null,
            SqlValue::Integer(7),
            SqlValue::Null,
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn times_and_json_are_text() {
        let at: jiff::Timestamp = "2026-11-29T08:09:10.5Z".parse().unwrap();
        let day: jiff::civil::Date = "2026-11-29".parse().unwrap();
        let values =
            params![at, day, at.to_zoned(jiff::tz::TimeZone::UTC), serde_json::json!([1]), Json("a"), Uuid::nil()]
                .into_values()
                .unwrap();
        let texts = [
            "2026-11-29T08:09:10.5Z",
            "2026-11-29",
            "2026-11-29T08:09:10.5Z",
            "[1]",
            "\"a\"",
            "00000000-0000-0000-0000-000000000000",
        ];
        assert_eq!(values, texts.map(|text| SqlValue::Text(text.to_owned())));
    }

    #[test]
    fn a_value_that_no_database_can_hold_is_refused_with_its_position() {
        let error = params!["a", u64::MAX, i128::MIN].into_values().unwrap_err();
        assert_eq!(error.code(), "parameter_mismatch");
        assert!(error.to_string().starts_with("parameter 2: "), "{error}");
    }

    #[test]
    fn a_tuple_has_up_to_sixteen() {
        let sixteen = Params::from((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, "16"));
        assert_eq!(sixteen.into_values().unwrap().len(), 16);
    }
}
