-- +goose Up

-- Topic rules; the actions are JSON.
CREATE TABLE topic_rules (
    tenant      TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    statement   TEXT   NOT NULL,
    sql_version TEXT   NOT NULL,
    filter      TEXT   NOT NULL,
    description TEXT   NOT NULL,
    disabled    BIGINT NOT NULL,
    actions     BLOB   NOT NULL,
    revision    TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    modified_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE rule_destinations (
    tenant        TEXT   NOT NULL,
    id            TEXT   NOT NULL,
    url           TEXT   NOT NULL,
    status        TEXT   NOT NULL,
    status_reason TEXT   NOT NULL,
    token_hash    TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    modified_at   BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX rule_destinations_by_token ON rule_destinations (token_hash);

-- What rules owe to the outside; the request is sealed. A row id table: requests
-- are large.
CREATE TABLE rule_deliveries (
    id         TEXT   NOT NULL,
    tenant     TEXT   NOT NULL,
    rule       TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    attempt_id TEXT   NOT NULL,
    failures   BIGINT NOT NULL,
    due_at     BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    request    BLOB   NOT NULL,
    origin     BLOB   NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX rule_deliveries_by_due ON rule_deliveries (due_at, id);
CREATE INDEX rule_deliveries_by_tenant ON rule_deliveries (tenant, id);

-- The attempt that caused an event, for the traces of what rules do with it.
ALTER TABLE events ADD COLUMN attempt_id TEXT NOT NULL DEFAULT '';

-- +goose Down

ALTER TABLE events DROP COLUMN attempt_id;
DROP TABLE rule_deliveries;
DROP TABLE rule_destinations;
DROP TABLE topic_rules;
