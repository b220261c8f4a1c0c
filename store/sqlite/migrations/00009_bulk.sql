-- +goose Up

CREATE TABLE registration_tasks (
    tenant        TEXT   NOT NULL,
    id            TEXT   NOT NULL,
    template_body TEXT   NOT NULL,
    bucket        TEXT   NOT NULL,
    file_key      TEXT   NOT NULL,
    role_arn      TEXT   NOT NULL,
    started_by    TEXT   NOT NULL,
    status        TEXT   NOT NULL,
    message       TEXT   NOT NULL,
    lines         BIGINT NOT NULL,
    byte_offset   BIGINT NOT NULL,
    byte_size     BIGINT NOT NULL,
    version       TEXT   NOT NULL,
    succeeded     BIGINT NOT NULL,
    failed        BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    modified_at   BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX registration_tasks_by_time ON registration_tasks (tenant, created_at, id);
CREATE INDEX registration_tasks_by_status ON registration_tasks (tenant, status, created_at, id);
CREATE INDEX registration_tasks_running ON registration_tasks (created_at, id) WHERE status IN ('InProgress', 'Cancelling');

-- Some hundred lines are one row: a row a line would cost more than the devices.
CREATE TABLE registration_reports (
    tenant  TEXT   NOT NULL,
    task_id TEXT   NOT NULL,
    kind    TEXT   NOT NULL,
    line    BIGINT NOT NULL,
    body    BLOB   NOT NULL,
    PRIMARY KEY (tenant, task_id, kind, line)
);

-- +goose Down

DROP TABLE registration_reports;
DROP TABLE registration_tasks;
