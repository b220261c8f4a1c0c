-- +goose Up

-- Events are read tenant by tenant, so that those of one that wait hide nobody else's.
CREATE TABLE events_of_tenants (
    tenant     TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    topic      TEXT   NOT NULL,
    payload    TEXT   NOT NULL,
    at         BIGINT NOT NULL,
    attempt_id TEXT   NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
INSERT INTO events_of_tenants SELECT tenant, id, topic, payload, at, attempt_id FROM events;
DROP TABLE events;
ALTER TABLE events_of_tenants RENAME TO events;

-- +goose Down

CREATE TABLE events_of_all (
    id         TEXT   NOT NULL,
    tenant     TEXT   NOT NULL,
    topic      TEXT   NOT NULL,
    payload    TEXT   NOT NULL,
    at         BIGINT NOT NULL,
    attempt_id TEXT   NOT NULL DEFAULT '',
    PRIMARY KEY (id)
) WITHOUT ROWID;
INSERT INTO events_of_all SELECT id, tenant, topic, payload, at, attempt_id FROM events;
DROP TABLE events;
ALTER TABLE events_of_all RENAME TO events;
