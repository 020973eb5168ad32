//! The limits of request bodies.

/// Maximum body size of most routes. Lists of tenants and migration files have [`BULK_BYTES_MAX`].
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// Maximum body size for 50,000 tenants with labels, or for a large migration directory: the largest body of any route.
pub(crate) const BULK_BYTES_MAX: usize = 32 << 20;
