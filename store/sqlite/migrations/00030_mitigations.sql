-- +goose Up

-- The bodies are JSON: what nobody looks rows up by.
CREATE TABLE mitigation_actions (
    tenant TEXT NOT NULL,
    name   TEXT NOT NULL,
    kind   TEXT NOT NULL,
    body   TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;

CREATE TABLE mitigation_tasks (
    tenant     TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    status     TEXT   NOT NULL,
    audit_task TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    body       TEXT   NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX mitigation_tasks_by_time ON mitigation_tasks (tenant, created_at, id);
CREATE INDEX mitigation_tasks_running ON mitigation_tasks (created_at, id) WHERE status = 'IN_PROGRESS';

CREATE TABLE mitigation_executions (
    tenant     TEXT NOT NULL,
    task_id    TEXT NOT NULL,
    finding_id TEXT NOT NULL,
    action     TEXT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (tenant, task_id, finding_id, action)
) WITHOUT ROWID;

-- +goose Down

DROP TABLE mitigation_executions;
DROP TABLE mitigation_tasks;
DROP TABLE mitigation_actions;
