-- +goose Up

-- Names of deleted labels, which stay their account's for a time: devices out there go on
-- asking at them, and another account would answer.
CREATE TABLE enrolment_label_names (
    name       TEXT   NOT NULL,
    account    TEXT   NOT NULL,
    kept_until BIGINT NOT NULL,
    PRIMARY KEY (name)
);
CREATE INDEX enrolment_label_names_by_account ON enrolment_label_names (account, kept_until);

-- +goose Down

DROP TABLE enrolment_label_names;
