-- +goose Up

-- An authority without profiles signed by all of them; from now on one without signs no
-- CAs and responders for keys from elsewhere. What there is keeps what it could do.
UPDATE authorities SET profiles = '["all"]' WHERE profiles IN ('null', '[]');

-- +goose Down

UPDATE authorities SET profiles = 'null' WHERE profiles = '["all"]';
