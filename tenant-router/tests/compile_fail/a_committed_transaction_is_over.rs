//! A transaction is not used after its commit.
use tenant_router::{Error, Tenant, Write};

pub async fn twice(tenant: Tenant<Write>) -> Result<(), Error> {
    let mut tx = tenant.write();
    tx.commit().await?;
    tx.execute("delete from tasks", ()).await.map(drop) //~ E0382
}
