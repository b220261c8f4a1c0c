-- +goose Up

-- Versions of before left what an attempt made when they deleted the attempt.
DELETE FROM attempt_made WHERE NOT EXISTS (SELECT 1 FROM attempts WHERE attempts.id = attempt_made.attempt);

-- Attempts of devices that were on when they last stopped without ending them: the server
-- that starts now ends them. Within a text quotation marks have a backslash.
UPDATE attempts SET live = 1 WHERE live = 0 AND body LIKE '%"outcome":"connected"%';

-- +goose Down

-- Both hold for versions of before.
