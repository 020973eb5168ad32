-- Impersonation: an operator acts as a member of one tenant.
-- kind impersonation_ticket: exchanged once for a session. kind impersonation: the session, with the member's rights.
alter table tokens add column staff text;  -- the operator who acts as the principal; null for all other kinds
