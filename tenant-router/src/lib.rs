//! Takes *one request* to the right tenant's database, if the caller may go there.

pub mod authorize;
#[cfg(feature = "axum")]
pub mod axum;
mod builder;
pub mod error;
mod feed;
mod fence;
pub mod gate;
pub mod key;
pub mod membership;
mod memo;
mod metrics;
pub mod params;
mod pools;
pub mod principal;
mod resolve;
pub mod router;
pub mod tenant;

pub use authorize::{Access, Grant, OperatorAccess};
pub use builder::RouterBuilder;
pub use catalog::members::Role;
pub use error::{Error, ErrorKind, Result};
pub use gate::SchemaRange;
pub use key::{Naming, RequestView};
pub use membership::Memberships;
pub use params::Params;
pub use principal::{Authenticate, Principal, PrincipalKind};
pub use router::Router;
pub use tenant::{CanWrite, Level, Manage, Read, ReadTx, Tenant, Write, WriteTx};
