-- +goose Up

-- Users belong to an account, whatever the region: their rows have no tenant.
CREATE TABLE users (
    account     TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    description TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (account, name)
) WITHOUT ROWID;

CREATE TABLE user_policies (
    account     TEXT   NOT NULL,
    user_name   TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    document    TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    modified_at BIGINT NOT NULL,
    PRIMARY KEY (account, user_name, name)
);

CREATE INDEX access_keys_by_user ON access_keys (account, user_name, id);

-- +goose Down

DROP INDEX access_keys_by_user;
DROP TABLE user_policies;
DROP TABLE users;
