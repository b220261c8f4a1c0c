-- +goose Up

-- Devices are on for weeks: when something failed on their connection last, or it ended.
-- 0 is never. Most attempts are over in a moment: whoever asks for what changed since a
-- time finds these by when they began, and the others here (see registry's lateAttempt).
ALTER TABLE attempts ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX attempts_changed ON attempts (tenant, changed, at, id) WHERE changed > at + 10000;

-- Attempts of devices that are on: those that a server left that was killed are ended by
-- the next one.
ALTER TABLE attempts ADD COLUMN live BIGINT NOT NULL DEFAULT 0;
CREATE INDEX attempts_live ON attempts (id) WHERE live = 1;

-- +goose Down

DROP INDEX attempts_live;
ALTER TABLE attempts DROP COLUMN live;
DROP INDEX attempts_changed;
ALTER TABLE attempts DROP COLUMN changed;
