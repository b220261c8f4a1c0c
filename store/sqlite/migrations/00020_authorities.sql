-- +goose Up

-- Tags, revocation and profiles are JSON.
CREATE TABLE authorities (
    tenant            TEXT   NOT NULL,
    id                TEXT   NOT NULL,
    name              TEXT   NOT NULL,
    type              TEXT   NOT NULL,
    status            TEXT   NOT NULL,
    key_uri           TEXT   NOT NULL,
    sealed_key        BLOB   NOT NULL,
    key_algorithm     TEXT   NOT NULL,
    signing_algorithm TEXT   NOT NULL,
    subject           BLOB   NOT NULL,
    csr               TEXT   NOT NULL,
    certificate       TEXT   NOT NULL,
    chain             TEXT   NOT NULL,
    certificate_id    TEXT   NOT NULL,
    serial            TEXT   NOT NULL,
    subject_key_id    TEXT   NOT NULL,
    not_before        BIGINT NOT NULL,
    not_after         BIGINT NOT NULL,
    parent            TEXT   NOT NULL,
    profiles          TEXT   NOT NULL,
    signing_ends      BIGINT NOT NULL,
    revocation        TEXT   NOT NULL,
    short_lived       BIGINT NOT NULL,
    tags              TEXT   NOT NULL,
    idempotency_token TEXT   NOT NULL,
    created_at        BIGINT NOT NULL,
    changed_at        BIGINT NOT NULL,
    restorable_until  BIGINT NOT NULL,
    revoked_at        BIGINT NOT NULL,
    revocation_reason TEXT   NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX authorities_by_name ON authorities (tenant, name) WHERE name <> '' AND status <> 'DELETED';
CREATE INDEX authorities_by_certificate ON authorities (tenant, certificate_id) WHERE certificate_id <> '';

CREATE TABLE revocation_lists (
    tenant      TEXT   NOT NULL,
    authority   TEXT   NOT NULL,
    shard       BIGINT NOT NULL,
    number      BIGINT NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL,
    due_at      BIGINT NOT NULL,
    der         BLOB   NOT NULL,
    PRIMARY KEY (tenant, authority, shard)
);
CREATE INDEX revocation_lists_due ON revocation_lists (due_at, tenant, authority, shard);

ALTER TABLE issuances ADD COLUMN authority TEXT NOT NULL DEFAULT '';
ALTER TABLE issuances ADD COLUMN key_hash TEXT NOT NULL DEFAULT '';
ALTER TABLE issuances ADD COLUMN requested_by TEXT NOT NULL DEFAULT '';
ALTER TABLE issuances ADD COLUMN request_token TEXT NOT NULL DEFAULT '';
ALTER TABLE issuances ADD COLUMN renews TEXT NOT NULL DEFAULT '';
ALTER TABLE issuances ADD COLUMN not_before BIGINT NOT NULL DEFAULT -62135596800000;
ALTER TABLE issuances ADD COLUMN not_after BIGINT NOT NULL DEFAULT -62135596800000;
ALTER TABLE issuances ADD COLUMN certificate BLOB NOT NULL DEFAULT x'';
ALTER TABLE issuances ADD COLUMN revoked_at BIGINT NOT NULL DEFAULT -62135596800000;
ALTER TABLE issuances ADD COLUMN reason TEXT NOT NULL DEFAULT '';
-- The built-in CA signs at a device's first connection: nothing may make that dearer.
CREATE UNIQUE INDEX issuances_by_serial ON issuances (tenant, authority, serial) WHERE authority <> '';
CREATE INDEX issuances_by_authority ON issuances (tenant, authority, id) WHERE authority <> '';
CREATE INDEX issuances_by_key ON issuances (tenant, key_hash) WHERE key_hash <> '';
CREATE INDEX issuances_by_token ON issuances (tenant, authority, request_token) WHERE request_token <> '';
CREATE INDEX issuances_revoked ON issuances (tenant, authority, serial) WHERE revoked_at > 0;

-- +goose Down

DROP INDEX issuances_revoked;
DROP INDEX issuances_by_token;
DROP INDEX issuances_by_key;
DROP INDEX issuances_by_authority;
DROP INDEX issuances_by_serial;
ALTER TABLE issuances DROP COLUMN reason;
ALTER TABLE issuances DROP COLUMN revoked_at;
ALTER TABLE issuances DROP COLUMN certificate;
ALTER TABLE issuances DROP COLUMN not_after;
ALTER TABLE issuances DROP COLUMN not_before;
ALTER TABLE issuances DROP COLUMN renews;
ALTER TABLE issuances DROP COLUMN request_token;
ALTER TABLE issuances DROP COLUMN requested_by;
ALTER TABLE issuances DROP COLUMN key_hash;
ALTER TABLE issuances DROP COLUMN authority;
DROP TABLE revocation_lists;
DROP TABLE authorities;
