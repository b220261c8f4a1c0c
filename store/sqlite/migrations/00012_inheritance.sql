-- +goose Up

ALTER TABLE queued_messages ADD COLUMN share_group BIGINT NOT NULL DEFAULT 0;
CREATE INDEX queued_messages_shared ON queued_messages (session, seq) WHERE share_group <> 0;

-- +goose Down

DROP INDEX queued_messages_shared;
ALTER TABLE queued_messages DROP COLUMN share_group;
