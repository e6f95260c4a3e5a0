-- +goose Up

-- What a person has in place of their tier's; NULL: as the tier.
ALTER TABLE people ADD COLUMN quota_ms INTEGER CHECK (quota_ms > 0);
ALTER TABLE people ADD COLUMN longest_ms INTEGER CHECK (longest_ms > 0);
ALTER TABLE people ADD COLUMN priority INTEGER CHECK (priority >= 0);
ALTER TABLE people ADD COLUMN concurrency INTEGER CHECK (concurrency >= 0);

-- How many seconds of quota a second of the lease costs (2 for xlarge): with it a line tells what was declared and used.
-- Lines from before have 1. task is the function's name; lines from before have the number that `spaces` gave it.
ALTER TABLE ledger ADD COLUMN factor INTEGER NOT NULL DEFAULT 1 CHECK (factor > 0);
