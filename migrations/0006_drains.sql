-- +goose Up

-- Owned by internal/lease: Devices that an operator has drained. They get no new leases until `spacehost gpu return`.
CREATE TABLE drains (
    device     TEXT    NOT NULL PRIMARY KEY CHECK (device <> ''),
    reason     TEXT    NOT NULL,
    drained_at INTEGER NOT NULL
) STRICT;
