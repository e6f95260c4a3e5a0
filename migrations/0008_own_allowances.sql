-- +goose Up

-- Overrides of a person, which replace the tier's values; NULL: as the tier.
ALTER TABLE people ADD COLUMN quota_ms INTEGER CHECK (quota_ms > 0);
ALTER TABLE people ADD COLUMN longest_ms INTEGER CHECK (longest_ms > 0);
ALTER TABLE people ADD COLUMN priority INTEGER CHECK (priority >= 0);
ALTER TABLE people ADD COLUMN concurrency INTEGER CHECK (concurrency >= 0);

-- factor is the number of quota seconds per second of the lease (2 for xlarge), from which the declared and used time
-- follow. Older entries have 1. task is the function's name; older entries have the number assigned by `spaces`.
ALTER TABLE ledger ADD COLUMN factor INTEGER NOT NULL DEFAULT 1 CHECK (factor > 0);
