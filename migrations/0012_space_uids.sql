-- +goose Up

-- Owned by internal/space: the uid and gid of each Space at the isolation level users. The row of a Space that is no
-- longer configured stays, so no other Space gets its uid.
CREATE TABLE space_uids (
    space       TEXT    NOT NULL PRIMARY KEY CHECK (space <> ''),
    uid         INTEGER NOT NULL UNIQUE CHECK (uid BETWEEN 1000 AND 4294967293),
    reserved_at INTEGER NOT NULL -- UTC in unix milliseconds, as in 0001
) STRICT;
