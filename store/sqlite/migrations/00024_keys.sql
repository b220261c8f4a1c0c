-- +goose Up

-- A key that is lost is refused whatever the profile says, and a CA's key is no device's:
-- all issuances have their key's hash, and what bears on the next one is found by it. An
-- intent without a certificate is no use of a key.
ALTER TABLE issuances ADD COLUMN ca BIGINT NOT NULL DEFAULT 0;
ALTER TABLE issuances ADD COLUMN key_reusable BIGINT NOT NULL DEFAULT 0;
UPDATE issuances SET ca = 1 WHERE profile IN ('root', 'intermediate', 'policy-ca', 'aws-root-ca')
    OR profile LIKE 'aws-subordinate-ca-%' OR certificate_id <> '' AND certificate_id IN (SELECT certificate_id FROM authorities);
DROP INDEX issuances_by_key;
CREATE INDEX issuances_by_key ON issuances (tenant, key_hash, ca, reason, id) WHERE key_hash <> '' AND certificate_id <> '';
CREATE INDEX issuances_by_certificate ON issuances (tenant, certificate_id) WHERE certificate_id <> '';

ALTER TABLE authorities ADD COLUMN key_hash TEXT NOT NULL DEFAULT '';
CREATE INDEX authorities_by_key ON authorities (tenant, key_hash) WHERE key_hash <> '';

-- +goose Down

DROP INDEX authorities_by_key;
ALTER TABLE authorities DROP COLUMN key_hash;
DROP INDEX issuances_by_certificate;
DROP INDEX issuances_by_key;
CREATE INDEX issuances_by_key ON issuances (tenant, key_hash) WHERE key_hash <> '';
ALTER TABLE issuances DROP COLUMN key_reusable;
ALTER TABLE issuances DROP COLUMN ca;
