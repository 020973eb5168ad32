-- Messages of topics, for the open connections of all processes of an application. They are kept for some minutes, so that a
-- client that reconnects gets what it missed.

create table topic_messages (
  seq          bigint not null primary key,  -- in commit order, without gaps; the newest row stays, because it holds the number
  tenant_id    text   not null,              -- empty: the message is removed, and only its number is left. No reference, because
                                             -- a message may outlive the row of its tenant by some minutes
  topic        text   not null,
  payload      text   not null,              -- JSON
  published_at bigint not null               -- milliseconds since 1970
);
create index topic_messages_topic on topic_messages (tenant_id, topic, seq);
