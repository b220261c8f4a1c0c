-- +goose Up

-- What each profile demanded, and from when on: one row a change.
CREATE TABLE profile_rules (
    name    TEXT   NOT NULL,
    from_at BIGINT NOT NULL,
    rules   TEXT   NOT NULL,
    PRIMARY KEY (name, from_at)
) WITHOUT ROWID;

-- +goose Down

DROP TABLE profile_rules;
