-- +goose Up

-- Owned by internal/lease: Devices that an operator has taken out of the line until they are returned.
CREATE TABLE drains (
    device     TEXT    NOT NULL PRIMARY KEY CHECK (device <> ''),
    reason     TEXT    NOT NULL,
    drained_at INTEGER NOT NULL
) STRICT;
