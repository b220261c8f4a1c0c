-- +goose Up

-- A key that was lost in one region of an account gets nothing in another: these are asked
-- without the region.
CREATE INDEX issuances_of_lost_keys ON issuances (key_hash, tenant) WHERE key_hash <> '' AND revoked_at > 0;
DROP INDEX adopted_revocations_by_key;
CREATE INDEX adopted_revocations_by_key ON adopted_revocations (key_hash, tenant) WHERE key_hash <> '';
DROP INDEX authority_certificates_with_key;
CREATE INDEX authority_certificates_with_key ON authority_certificates (key_hash, tenant, certificate_id) WHERE key_hash <> '';

-- +goose Down

DROP INDEX authority_certificates_with_key;
CREATE INDEX authority_certificates_with_key ON authority_certificates (tenant, key_hash, certificate_id) WHERE key_hash <> '';
DROP INDEX adopted_revocations_by_key;
CREATE INDEX adopted_revocations_by_key ON adopted_revocations (tenant, key_hash) WHERE key_hash <> '';
DROP INDEX issuances_of_lost_keys;
