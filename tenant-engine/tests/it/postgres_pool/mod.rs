//! The request path on a real PostgreSQL server, through the public API only.

mod dropped;
mod failures;
mod fairness;
mod fixture;
mod lent;
mod lifecycle;
mod limits;
mod raised;
mod refused_answers;
mod requests;
mod sandbox;
mod values;
