-- Webhooks: addresses outside the fleet that get its events over HTTP. The events themselves are the queue: each webhook
-- has its own place in them.

create table webhooks (
  id               text   not null primary key,
  url              text   not null,        -- where events are sent
  secret           text   not null,        -- sealed; signs the messages
  kinds            text   not null,        -- JSON array of the kinds of events to send; empty: every kind
  tenant_id        text references tenants (id),  -- only events about this tenant; null: the events of the whole fleet
  private_allowed bigint not null,        -- 1: an operator allowed plain HTTP and private addresses
  state            text   not null,        -- enabled | failing (the last attempt failed) | paused (nothing is sent)
  sent_seq         bigint not null,        -- every event up to this one was delivered, given up, or is not selected
  failures         bigint not null,        -- failed attempts at the next selected event
  next_attempt_at  bigint not null,        -- not before; milliseconds since 1970, as all times here
  lease_owner      text,                   -- the process that sends; null: none
  lease_until      bigint,
  created_at       bigint not null,
  delivered_at     bigint                  -- the last delivery; null: never
);

-- The latest attempts of each webhook. Old rows are removed when new ones are added.
create table webhook_deliveries (
  webhook_id  text   not null references webhooks (id),
  number      bigint not null,             -- counts the webhook's attempts
  event_seq   bigint,                      -- the event; null: a test
  message_id  text   not null,             -- the header webhook-id
  kind        text   not null,             -- the event's kind
  attempt     bigint not null,             -- counts the attempts at this event, from 1
  at          bigint not null,
  result      text   not null,             -- delivered | failed (is tried again) | given_up | gone (the webhook is paused)
  status      bigint,                      -- the answer's HTTP status; null: there was none
  error       text,                        -- why it failed; null: delivered
  duration_ms bigint not null,
  primary key (webhook_id, number)
);
