//! The checks that an experienced operator would make first, each with advice.
//!
//! The doctor's answer is made of them. One file for each thing that is checked; [`check_fleet`] lists the checks in the
//! order in which they are shown.

use self::check::HealthCheck;
use crate::app::App;
use crate::error::Result;
use crate::scrub;
use crate::tls::CertificateReloader;

mod backups;
mod certificate;
pub(crate) mod check;
mod databases;
mod directories;
mod disks;
pub(crate) mod operations;
mod process;
mod schema;
pub(crate) mod schema_state;
pub(crate) mod servers;

/// Makes all checks and changes nothing, except that a small object is written to the backup store and removed again.
/// `certificates` are those of the answering server. A backup may be `backup_age_hours` old.
///
/// # Errors
/// Those of the catalog. What a check cannot look at is a result of the check.
pub(crate) async fn check_fleet(
    app: &App,
    certificates: Option<&CertificateReloader>,
    backup_age_hours: u32,
) -> Result<Vec<HealthCheck>> {
    let directory = &app.config.data_dir;
    let mut checks = vec![
        disks::disk_check("data_dir", directory),
        process::private_file_check("fleet_key", &directory.join("fleet.key")),
        process::private_file_check("operator_token", &directory.join("operator.token")),
        process::open_files(),
        process::runner_check(app),
    ];
    checks.extend(certificate::certificate_check(app, certificates));
    let known = catalog::servers::list_servers(&mut app.catalog.read().await?).await?;
    for (record, _) in &known {
        checks.extend(servers::server_checks(app, record).await);
    }
    checks.push(disks::reserves_check(app, &known));
    checks.push(directories::markers_check(app, &known));
    checks.push(directories::file_systems(app, &known));
    checks.push(databases::databases_check(&scrub::run_scrub(&app.context, &scrub::InspectionScope::Nothing).await?));
    checks.push(schema::ledgers_check(app).await?);
    let mut tx = app.catalog.read().await?;
    checks.push(schema::schema_check(&mut tx).await?);
    checks.push(backups::backup_age(&mut tx, backup_age_hours).await?);
    let last = catalog::backups::last_keys(&mut tx, backups::MANIFESTS_PROBED).await?;
    checks.push(operations::failed_operations(&mut tx).await?);
    drop(tx);
    checks.push(backups::backup_store(app, &last).await);
    Ok(checks)
}
