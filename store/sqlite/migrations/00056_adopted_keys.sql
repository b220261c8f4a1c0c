-- +goose Up

-- The key of a certificate that an authority made elsewhere and revoked here: when it is lost,
-- nothing may be issued for it. Of entries of lists, and of those of before, it isn't known.
ALTER TABLE adopted_revocations ADD COLUMN key_hash TEXT NOT NULL DEFAULT '';
CREATE INDEX adopted_revocations_by_key ON adopted_revocations (tenant, key_hash) WHERE key_hash <> '';

-- +goose Down

DROP INDEX adopted_revocations_by_key;
ALTER TABLE adopted_revocations DROP COLUMN key_hash;
