-- +goose Up

-- Owned by internal/nodes: where each Space has started last, with its files. The row of a Space that is no longer configured stays.
CREATE TABLE space_nodes (
    space TEXT NOT NULL PRIMARY KEY CHECK (space <> ''),
    node  TEXT NOT NULL -- "host" is the host's own machine
) STRICT;

-- +goose Down

DROP TABLE space_nodes;
