//! Compiles: the same calls in the form that is allowed.
use tenant_router::{Error, Read, Tenant, Write, params};

pub async fn read(tenant: Tenant<Read>) -> Result<Vec<String>, Error> {
    tenant.query_as("select title from tasks", ()).fetch_all().await
}
pub async fn write(tenant: Tenant<Write>) -> Result<(), Error> {
    let mut tx = tenant.write();
    tx.execute("insert into tasks (title) values (?1)", params!["milk"]).await?;
    tx.commit().await
}
pub async fn count(tenant: Tenant<Read>) -> Result<i64, Error> {
    tenant.read_rusqlite(|tx| Ok(tx.query_row("select count(*) from tasks", [], |row| row.get(0))?)).await
}
pub async fn lent(tenant: Tenant<Write>) -> Result<(), Error> {
    tenant.write_sqlx().await?.commit().await
}
pub async fn other_level(tenant: Tenant<Read>) -> Result<Tenant<Write>, Error> {
    tenant.at().await
}
pub async fn tell(tenant: Tenant<Write>) -> Result<i64, Error> {
    tenant.topic("tasks")?.publish("hello").await
}
