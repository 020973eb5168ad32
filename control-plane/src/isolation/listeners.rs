//! Listeners and connections: what crosses a network is encrypted, and the admin API stays on the machine.

use std::net::{IpAddr, SocketAddr};

use catalog::ServerRecord;
use tenant_engine::{DatabaseServer, EngineKind};

use super::line::AuditLine;
use crate::app::App;

const AREA: &str = "listeners";

/// The lines of both listeners and of the connections to PostgreSQL servers.
pub(super) async fn listener_lines(app: &App, servers: &[ServerRecord]) -> Vec<AuditLine> {
    let has_tls = app.config.tls.is_some();
    let mut lines = vec![admin_line(app.config.admin_listen, has_tls), data_line(app.config.listen, has_tls)];
    for server in servers.iter().filter(|server| server.engine == EngineKind::Postgres) {
        lines.push(connection_line(app, server).await);
    }
    lines
}

/// PURE: the admin API controls every tenant, so it should not listen for other machines.
fn admin_line(listen: SocketAddr, has_tls: bool) -> AuditLine {
    let next = "set admin_listen to a loopback address, and reach it through a tunnel or a proxy with its own checks";
    match (listen.ip().is_loopback(), has_tls) {
        (true, _) => AuditLine::pass(AREA, "admin", format!("the admin API listens on {listen} only")),
        (false, true) => AuditLine::fail(
            AREA,
            "admin",
            format!("the admin API listens on {listen}, with TLS, for other machines"),
            next,
        ),
        (false, false) => {
            AuditLine::fail(AREA, "admin", format!("the admin API listens on {listen} without TLS"), next)
        }
    }
}

/// PURE: tokens cross the network with each request of the data API.
fn data_line(listen: SocketAddr, has_tls: bool) -> AuditLine {
    match (listen.ip().is_loopback(), has_tls) {
        (true, _) => AuditLine::pass(AREA, "data", format!("the data API listens on {listen} only")),
        (false, true) => AuditLine::pass(AREA, "data", format!("the data API listens on {listen} with TLS")),
        (false, false) => AuditLine::fail(
            AREA,
            "data",
            format!("the data API listens on {listen} without TLS"),
            "set tls_certificate and tls_key, or listen on a loopback address behind a proxy that ends TLS",
        ),
    }
}

async fn connection_line(app: &App, server: &ServerRecord) -> AuditLine {
    let name = format!("connection to server {}", server.name);
    let next = format!("fleetctl server set {} --dsn-file FILE, with sslmode=verify-full", server.name);
    match app.context.load_server(server.id).await {
        Ok(DatabaseServer::Postgres(postgres)) => {
            let address = postgres.host_and_port();
            match (is_loopback(address), postgres.requires_encryption()) {
                (true, _) => AuditLine::pass(AREA, name, format!("{address} is on this machine")),
                (false, true) => AuditLine::pass(AREA, name, format!("{address} is reached with TLS only")),
                (false, false) => AuditLine::fail(AREA, name, format!("{address} may be reached without TLS"), next),
            }
        }
        Ok(_) => AuditLine::not_applicable(AREA, name, "the server is a directory"),
        Err(error) => AuditLine::not_looked(AREA, name, format!("{}: {}", error.code(), error.detail), next),
    }
}

/// PURE: whether `host:port` is on this machine.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.starts_with('/') || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::line::AuditVerdict::{Fail, Pass};

    #[test]
    fn a_listener_for_other_machines_needs_tls_and_the_admin_api_has_none() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(admin_line(at("127.0.0.1:8081"), false).verdict, Pass);
        assert_eq!(admin_line(at("[::1]:8081"), false).verdict, Pass);
        assert_eq!(admin_line(at("0.0.0.0:8081"), true).verdict, Fail);
        assert_eq!(data_line(at("0.0.0.0:8080"), false).verdict, Fail);
        assert_eq!(data_line(at("0.0.0.0:8080"), true).verdict, Pass);
        for (address, expected) in [
            ("localhost:5432", true),
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("10.0.0.1:5432", false),
            ("db.x:1", false),
        ] {
            assert_eq!(is_loopback(address), expected, "{address}");
        }
    }
}
