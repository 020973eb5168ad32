//! Parameters of a statement: [`Params`] from nothing, arrays, vectors and small tuples.

use tenant_engine::SqlValue;

/// The positional parameters (`?1`, `?2` …) of one statement, in order.
///
/// ```
/// use tenant_router::Params;
///
/// let none = Params::from(());
/// let same = Params::from([1_i64, 2]);
/// let mixed = Params::from((7_i64, "buy milk"));
/// # assert_ne!(none, same); assert_ne!(same, mixed);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params(pub Vec<SqlValue>);

impl From<()> for Params {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl<T: Into<SqlValue>> From<Vec<T>> for Params {
    fn from(values: Vec<T>) -> Self {
        Self(values.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<SqlValue>, const N: usize> From<[T; N]> for Params {
    fn from(values: [T; N]) -> Self {
        Self(values.into_iter().map(Into::into).collect())
    }
}

impl<A: Into<SqlValue>, B: Into<SqlValue>> From<(A, B)> for Params {
    fn from((a, b): (A, B)) -> Self {
        Self(vec![a.into(), b.into()])
    }
}

impl<A: Into<SqlValue>, B: Into<SqlValue>, C: Into<SqlValue>> From<(A, B, C)> for Params {
    fn from((a, b, c): (A, B, C)) -> Self {
        Self(vec![a.into(), b.into(), c.into()])
    }
}

impl<A: Into<SqlValue>, B: Into<SqlValue>, C: Into<SqlValue>, D: Into<SqlValue>> From<(A, B, C, D)> for Params {
    fn from((a, b, c, d): (A, B, C, D)) -> Self {
        Self(vec![a.into(), b.into(), c.into(), d.into()])
    }
}
