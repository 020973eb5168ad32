//! Applies `migrations/catalog` to a catalog and refuses one whose schema is newer than this program.
