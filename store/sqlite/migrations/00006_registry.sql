-- +goose Up

-- Lists of attributes are JSON, empty for none.
CREATE TABLE thing_types (
    tenant                 TEXT   NOT NULL,
    name                   TEXT   NOT NULL,
    type_id                TEXT   NOT NULL,
    description            TEXT   NOT NULL,
    searchable_attributes  TEXT   NOT NULL,
    propagating_attributes TEXT   NOT NULL,
    deprecated_at          BIGINT NOT NULL,
    created_at             BIGINT NOT NULL,
    modified_at            BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;

CREATE TABLE billing_groups (
    tenant      TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    group_id    TEXT   NOT NULL,
    description TEXT   NOT NULL,
    version     BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    modified_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE INDEX things_by_billing_group ON things (tenant, billing_group, name) WHERE billing_group <> '';

-- The switches that are on, with commas between them.
CREATE TABLE event_configurations (
    tenant      TEXT   NOT NULL,
    enabled     TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    modified_at BIGINT NOT NULL,
    PRIMARY KEY (tenant)
) WITHOUT ROWID;

-- +goose Down

DROP TABLE event_configurations;
DROP INDEX things_by_billing_group;
DROP TABLE billing_groups;
DROP TABLE thing_types;
