-- +goose Up

-- MQTT sessions that outlive their connections, their queues, and retained
-- messages. Packets are MQTT 5 PUBLISH packets.

CREATE TABLE sessions (
    key          BIGINT NOT NULL,
    tenant       TEXT   NOT NULL,
    client_id    TEXT   NOT NULL,
    level        BIGINT NOT NULL,
    expiry       BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    sent_through BIGINT NOT NULL,
    will         BLOB   NOT NULL,
    will_at      BIGINT NOT NULL,
    will_delay   BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (key)
) WITHOUT ROWID;

CREATE TABLE session_subscriptions (
    session BIGINT NOT NULL,
    filter  TEXT   NOT NULL,
    qos     BIGINT NOT NULL,
    options BIGINT NOT NULL,
    PRIMARY KEY (session, filter)
) WITHOUT ROWID;

CREATE TABLE share_groups (
    key    BIGINT NOT NULL,
    tenant TEXT   NOT NULL,
    filter TEXT   NOT NULL,
    PRIMARY KEY (key)
) WITHOUT ROWID;

-- A row id table appends: messages of many sessions that come together share
-- pages, and those are let go together. In its primary key each would change a
-- page of its own.
CREATE TABLE queued_messages (
    session    BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    packet     BLOB   NOT NULL,
    PRIMARY KEY (session, seq)
);

CREATE TABLE retained_messages (
    tenant       TEXT   NOT NULL,
    topic        TEXT   NOT NULL,
    qos          BIGINT NOT NULL,
    payload_size BIGINT NOT NULL,
    modified_at  BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    packet       BLOB   NOT NULL,
    PRIMARY KEY (tenant, topic)
);

-- +goose Down

DROP TABLE retained_messages;
DROP TABLE queued_messages;
DROP TABLE share_groups;
DROP TABLE session_subscriptions;
DROP TABLE sessions;
