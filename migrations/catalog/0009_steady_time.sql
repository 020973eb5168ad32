-- A time that a wrong clock cannot push ahead, for what is dropped when its time is over.

-- Milliseconds since 1970. It follows the clock of the process that drops databases, but only as far as that process has
-- measured time itself. Null in a fleet without events: the first process sets it.
alter table fleet add column steady_at bigint;
update fleet set steady_at = coalesce((select max(at) from events), created_at);
