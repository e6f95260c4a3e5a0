-- +goose Up

-- Where the start of a Space runs that has the lease; '' is the host's own machine.
ALTER TABLE leases ADD COLUMN machine TEXT NOT NULL DEFAULT '';
ALTER TABLE runners ADD COLUMN machine TEXT NOT NULL DEFAULT '';

-- +goose Down

ALTER TABLE runners DROP COLUMN machine;
ALTER TABLE leases DROP COLUMN machine;
