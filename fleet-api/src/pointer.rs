//! JSON pointers to fields of an answer, checked by the compiler.
//!
//! A client that shows answers of any server as they are keeps them as JSON. With [`pointer!`](crate::pointer!) it
//! and [`field!`](crate::field!) it still cannot name a field that does not exist.

/// A field that holds a `T`, always or sometimes.
pub trait HoldsField<T> {}

impl<T> HoldsField<T> for T {}
impl<T> HoldsField<T> for Option<T> {}

/// Compiles only for a field that holds a `T`. Used by [`pointer!`](crate::pointer!).
pub fn require_field<T>(_field: &impl HoldsField<T>) {}

/// The JSON pointer of a field: `pointer!(OperationView: progress, TenantProgress: total)` is `"/progress/total"`. It
/// does not compile if a type has no such field, or if the field does not hold the next type.
#[macro_export]
macro_rules! pointer {
    ($type:ty: $field:ident) => {{
        const _: fn(&$type) = |value| {
            let _ = &value.$field;
        };
        concat!("/", stringify!($field))
    }};
    ($type:ty: $field:ident, $next:ty: $inner:ident) => {{
        const _: fn(&$type) = |value| $crate::pointer::require_field::<$next>(&value.$field);
        const _: fn(&$next) = |value| {
            let _ = &value.$inner;
        };
        concat!("/", stringify!($field), "/", stringify!($inner))
    }};
}

/// The name of a field in JSON: `field!(OperationView: state)` is `"state"`. It does not compile if the type has no such
/// field.
#[macro_export]
macro_rules! field {
    ($type:ty: $field:ident) => {{
        const _: fn(&$type) = |value| {
            let _ = &value.$field;
        };
        stringify!($field)
    }};
}

#[cfg(test)]
mod tests {
    use crate::operations::{FailureDetail, OperationView, TenantProgress};

    #[test]
    fn a_pointer_is_the_path_of_its_fields() {
        assert_eq!(field!(OperationView: state), "state");
        assert_eq!(pointer!(OperationView: id), "/id");
        assert_eq!(pointer!(OperationView: progress, TenantProgress: total), "/progress/total");
        assert_eq!(pointer!(OperationView: error, FailureDetail: code), "/error/code");
    }
}
