//! The HTTP surface on real sockets: a real fleet in a temporary directory, served on free ports.

mod dns_server;
mod site;
mod spoilt;

mod backups;
mod data;
mod domains;
mod fleet;
mod jobs;
mod limits;
mod lists;
mod logs;
mod once;
mod openapi;
mod openapi_data;
mod problems;
mod refusals;
mod scrubbing;
mod serving;
mod streams;
mod webhooks;
mod who;
