-- +goose Up

ALTER TABLE issuances ADD COLUMN log_index BIGINT NOT NULL DEFAULT -1;
-- As long as there are issuances that wait for the log, and no longer.
CREATE INDEX issuances_unlogged ON issuances (id) WHERE certificate_id <> '' AND log_index < 0;

-- One row. Pending is JSON.
CREATE TABLE issuance_log (
    id         BIGINT NOT NULL,
    size       BIGINT NOT NULL,
    pending    TEXT   NOT NULL,
    checkpoint TEXT   NOT NULL,
    PRIMARY KEY (id)
);

-- +goose Down

DROP TABLE issuance_log;
DROP INDEX issuances_unlogged;
ALTER TABLE issuances DROP COLUMN log_index;
