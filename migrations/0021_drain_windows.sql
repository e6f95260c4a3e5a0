-- +goose Up

-- Owned by internal/lease: the window of a drain, in milliseconds. NULL: from the command on, and until `spacehost gpu return`.
ALTER TABLE drains ADD COLUMN from_at INTEGER;
ALTER TABLE drains ADD COLUMN until_at INTEGER CHECK (until_at > coalesce(from_at, 0));
