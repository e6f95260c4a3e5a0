-- +goose Up

-- Owned by internal/stages: each stage that a Space has entered, in milliseconds. cause is why a start has ended, actor the operator
-- who requested it.
CREATE TABLE space_stages (
    id     INTEGER PRIMARY KEY,
    space  TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    stage  TEXT    NOT NULL,
    reason TEXT    NOT NULL,
    cause  TEXT    NOT NULL,
    actor  TEXT    NOT NULL
) STRICT;
CREATE INDEX space_stages_space ON space_stages (space, id);

-- Owned by internal/stages: the Spaces that operators have paused.
CREATE TABLE space_pauses (
    space  TEXT    PRIMARY KEY,
    at     INTEGER NOT NULL,
    reason TEXT    NOT NULL,
    actor  TEXT    NOT NULL
) STRICT;

-- +goose Down

DROP TABLE space_pauses;
DROP TABLE space_stages;
