-- +goose Up

-- For the timeline of the console, which reads the leases of a period.
CREATE INDEX leases_ended ON leases (ended_at) WHERE ended_at IS NOT NULL;

-- +goose Down

DROP INDEX leases_ended;
