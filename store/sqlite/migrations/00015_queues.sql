-- +goose Up

-- What is owed is looked through queue by queue, so that a long one hides no other:
-- calls by their function, deliveries by where they go.
CREATE INDEX queued_calls_by_queue ON queued_calls (tenant, function_name, due_at, id);
DROP INDEX queued_calls_by_function;
ALTER TABLE rule_deliveries ADD COLUMN queue TEXT NOT NULL DEFAULT '';
UPDATE rule_deliveries SET queue = kind || ' of rule ' || rule;
CREATE INDEX rule_deliveries_by_queue ON rule_deliveries (tenant, queue, due_at, id);
DROP INDEX rule_deliveries_by_tenant;

-- +goose Down

CREATE INDEX rule_deliveries_by_tenant ON rule_deliveries (tenant, id);
DROP INDEX rule_deliveries_by_queue;
ALTER TABLE rule_deliveries DROP COLUMN queue;
CREATE INDEX queued_calls_by_function ON queued_calls (tenant, function_name);
DROP INDEX queued_calls_by_queue;
