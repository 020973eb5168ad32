-- Accounts of tenants with other services, which send webhooks. The tenant of a webhook comes from here, and never from its
-- contents.
create table external_accounts (
  provider       text   not null,                 -- the application's name for the service, for instance 'stripe'
  account        text   not null,                 -- the service's id of the account
  tenant_id      text   not null references tenants (id),
  secret         text,                            -- sealed: signs this account's webhooks; null: the application has one
                                                  -- secret for all accounts of the provider
  created_at     bigint not null,                 -- milliseconds since 1970
  primary key (provider, account)
);
create index external_accounts_tenant on external_accounts (tenant_id);
