-- +goose Up

-- Which attempts made a certificate: a device that was given one is found with the
-- connection of the claim that asked for it.
CREATE TABLE attempt_made (
    certificate_id TEXT NOT NULL,
    attempt        TEXT NOT NULL,
    PRIMARY KEY (certificate_id, attempt)
) WITHOUT ROWID;
CREATE INDEX attempt_made_by_attempt ON attempt_made (attempt);

-- +goose Down

DROP TABLE attempt_made;
