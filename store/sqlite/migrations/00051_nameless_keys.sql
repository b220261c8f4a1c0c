-- +goose Up

-- Versions of before named the keys of some profiles' issuances alone. Those that lack the
-- name are looked for at each start and given it: few have none for good.
CREATE INDEX issuances_without_key ON issuances (id) WHERE key_hash = '' AND certificate_id <> '';

-- +goose Down

DROP INDEX issuances_without_key;
