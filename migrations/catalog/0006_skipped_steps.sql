-- Tenants that leave the selection of a run after it was planned.

-- What becomes of the step of a tenant that left: fail (the tenant was named) | skip (a rule selected the tenants; a run
-- that skips all of them fails) | ignore (skip; a run that skips all of them succeeds). The state of a step may be
-- 'skipped' from now on, with the reason in error_code and error.
alter table operations add column when_left text not null default 'fail';
