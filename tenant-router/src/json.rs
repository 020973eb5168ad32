//! [`Json`]: a value that the database holds as JSON text.

use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};

/// A value that a column holds as JSON: `json` or `jsonb` on PostgreSQL, text on SQLite. As a parameter and as a field
/// of a row.
///
/// A field that is a struct, a map or a list needs no wrapper: text in its column is read as JSON anyway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Json<T>(pub T);

/// Tells the row's deserializer that the text is JSON. Other formats see the value alone.
pub(crate) const JSON_NAME: &str = "$tenant_router::Json";

impl<T: Serialize> Serialize for Json<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Json<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Inside<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Inside<T> {
            type Value = T;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<T, D::Error> {
                T::deserialize(from)
            }
        }
        from.deserialize_newtype_struct(JSON_NAME, Inside(std::marker::PhantomData)).map(Json)
    }
}
