-- What a tenant has applied, also when it is not at the head of a release.

-- The release whose files the tenant's ledger holds, up to schema_version. Null beside a version: the ledger came from
-- elsewhere (adopted, restored) or from a program before this column, and is read from the database where it matters.
alter table tenants add column ledger_release_id text;
update tenants set ledger_release_id = release_id;
