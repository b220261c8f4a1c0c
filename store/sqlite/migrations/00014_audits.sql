-- +goose Up

-- Checks and targets are JSON.
CREATE TABLE audit_configurations (
    tenant      TEXT   NOT NULL,
    role_arn    TEXT   NOT NULL,
    checks      TEXT   NOT NULL,
    targets     TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    modified_at BIGINT NOT NULL,
    PRIMARY KEY (tenant)
) WITHOUT ROWID;

-- Runs are JSON: one for each check.
CREATE TABLE audit_tasks (
    tenant        TEXT   NOT NULL,
    id            TEXT   NOT NULL,
    type          TEXT   NOT NULL,
    schedule_name TEXT   NOT NULL,
    started_by    TEXT   NOT NULL,
    status        TEXT   NOT NULL,
    message       TEXT   NOT NULL,
    runs          TEXT   NOT NULL,
    restarts      BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    ended_at      BIGINT NOT NULL,
    modified_at   BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX audit_tasks_by_time ON audit_tasks (tenant, created_at, id);
CREATE INDEX audit_tasks_running ON audit_tasks (created_at, id) WHERE status = 'IN_PROGRESS';

-- The body is JSON: what nobody looks findings up by.
CREATE TABLE audit_findings (
    tenant       TEXT   NOT NULL,
    id           TEXT   NOT NULL,
    task_id      TEXT   NOT NULL,
    check_name   TEXT   NOT NULL,
    found_at     BIGINT NOT NULL,
    body         TEXT   NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX audit_findings_by_task ON audit_findings (tenant, task_id, check_name, id);
CREATE INDEX audit_findings_by_time ON audit_findings (tenant, found_at, id);

-- Checks are names with spaces between them.
CREATE TABLE scheduled_audits (
    tenant       TEXT   NOT NULL,
    name         TEXT   NOT NULL,
    frequency    TEXT   NOT NULL,
    day_of_month TEXT   NOT NULL,
    day_of_week  TEXT   NOT NULL,
    checks       TEXT   NOT NULL,
    day_minute   BIGINT NOT NULL,
    next_at      BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    modified_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE INDEX scheduled_audits_by_time ON scheduled_audits (next_at, tenant, name);

-- +goose Down

DROP TABLE scheduled_audits;
DROP TABLE audit_findings;
DROP TABLE audit_tasks;
DROP TABLE audit_configurations;
