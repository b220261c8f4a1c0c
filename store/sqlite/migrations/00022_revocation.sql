-- +goose Up

-- Every certificate of a CA that an authority had, has, or made for one elsewhere.
CREATE TABLE authority_certificates (
    tenant         TEXT NOT NULL,
    certificate_id TEXT NOT NULL,
    authority      TEXT NOT NULL,
    issuer         TEXT NOT NULL,
    serial         TEXT NOT NULL,
    key_hash       TEXT NOT NULL,
    PRIMARY KEY (tenant, certificate_id)
);
CREATE INDEX authority_certificates_of ON authority_certificates (tenant, authority, certificate_id) WHERE authority <> '';
CREATE INDEX authority_certificates_by ON authority_certificates (tenant, issuer, certificate_id) WHERE issuer <> '';
CREATE INDEX authority_certificates_with_key ON authority_certificates (tenant, key_hash, certificate_id) WHERE key_hash <> '';
INSERT INTO authority_certificates (tenant, certificate_id, authority, issuer, serial, key_hash)
    SELECT tenant, certificate_id, min(id), max(parent), max(serial), '' FROM authorities WHERE certificate_id <> '' GROUP BY tenant, certificate_id;
DROP INDEX authorities_by_certificate;
CREATE INDEX authorities_by_subject ON authorities (subject);

-- JSON.
ALTER TABLE authorities ADD COLUMN crls TEXT NOT NULL DEFAULT '{}';

-- What an authority revoked that isn't among issuances.
CREATE TABLE adopted_revocations (
    tenant         TEXT   NOT NULL,
    authority      TEXT   NOT NULL,
    serial         TEXT   NOT NULL,
    certificate_id TEXT   NOT NULL,
    not_after      BIGINT NOT NULL,
    revoked_at     BIGINT NOT NULL,
    reason         TEXT   NOT NULL,
    PRIMARY KEY (tenant, authority, serial)
);
CREATE INDEX adopted_revocations_by_serial ON adopted_revocations (serial);
CREATE INDEX issuances_revoked_by_certificate ON issuances (certificate_id) WHERE revoked_at > 0;

-- Rows stay for their numbers; the list that isn't divided has a number of its own, -1.
ALTER TABLE revocation_lists ADD COLUMN signed_at BIGINT NOT NULL DEFAULT -62135596800000;
ALTER TABLE revocation_lists ADD COLUMN wanted BIGINT NOT NULL DEFAULT 0;
ALTER TABLE revocation_lists ADD COLUMN retired BIGINT NOT NULL DEFAULT 0;
DROP INDEX revocation_lists_due;
CREATE INDEX revocation_lists_due ON revocation_lists (due_at, tenant, authority) WHERE retired = 0;
UPDATE revocation_lists SET shard = -1
    WHERE shard = 0 AND authority IN (SELECT id FROM authorities WHERE authorities.tenant = revocation_lists.tenant AND revocation NOT LIKE '%crlShards%');

-- +goose Down

UPDATE revocation_lists SET shard = 0 WHERE shard = -1;
DROP INDEX revocation_lists_due;
CREATE INDEX revocation_lists_due ON revocation_lists (due_at, tenant, authority, shard);
ALTER TABLE revocation_lists DROP COLUMN retired;
ALTER TABLE revocation_lists DROP COLUMN wanted;
ALTER TABLE revocation_lists DROP COLUMN signed_at;
DROP INDEX issuances_revoked_by_certificate;
DROP TABLE adopted_revocations;
ALTER TABLE authorities DROP COLUMN crls;
DROP INDEX authorities_by_subject;
CREATE INDEX authorities_by_certificate ON authorities (tenant, certificate_id) WHERE certificate_id <> '';
DROP TABLE authority_certificates;
