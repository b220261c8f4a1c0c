-- +goose Up

-- Attempts that are counted with another one, whose row is replaced by that of the
-- latest, are found by what they were known by.
ALTER TABLE attempts ADD COLUMN fold TEXT NOT NULL DEFAULT '';
CREATE INDEX attempts_by_fold ON attempts (fold, id) WHERE fold <> '';
CREATE TABLE attempt_aliases (
    word   TEXT NOT NULL,
    tenant TEXT NOT NULL,
    fold   TEXT NOT NULL,
    PRIMARY KEY (word, tenant)
) WITHOUT ROWID;
CREATE INDEX attempt_aliases_by_fold ON attempt_aliases (fold);

-- +goose Down

DROP TABLE attempt_aliases;
DROP INDEX attempts_by_fold;
ALTER TABLE attempts DROP COLUMN fold;
