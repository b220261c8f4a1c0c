-- +goose Up

-- The condition key_hash = '' made SQLite compile each look-up of a key anew, each time: it
-- asks whether the key that is bound is the empty one, for which this index would do.
DROP INDEX issuances_without_key;
CREATE INDEX issuances_without_key ON issuances (id) WHERE length(key_hash) = 0 AND certificate_id <> '';

-- +goose Down

DROP INDEX issuances_without_key;
CREATE INDEX issuances_without_key ON issuances (id) WHERE key_hash = '' AND certificate_id <> '';
