-- +goose Up

-- All times are UTC in unix milliseconds, and all durations are in milliseconds.

-- Owned by internal/lease. The row of a lease and its hold in the ledger are written in one transaction.
CREATE TABLE leases (
    id           TEXT    NOT NULL PRIMARY KEY,
    space        TEXT    NOT NULL,
    instance     TEXT    NOT NULL DEFAULT '', -- one start of the Space
    event        TEXT    NOT NULL DEFAULT '',
    identity     TEXT    NOT NULL,
    tier         TEXT    NOT NULL DEFAULT '',
    task         TEXT    NOT NULL DEFAULT '',
    size         TEXT    NOT NULL DEFAULT '',
    declared_ms  INTEGER NOT NULL,
    held_ms      INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    slot         INTEGER,
    device       TEXT,
    worker_pid   INTEGER,
    worker_start INTEGER,                     -- with boot_id it tells a pid from its successor
    boot_id      TEXT    NOT NULL DEFAULT '',
    admitted_at  INTEGER NOT NULL,
    granted_at   INTEGER,
    active_at    INTEGER,
    deadline_at  INTEGER,
    beat_at      INTEGER,                     -- after a crash no charge goes past it
    ended_at     INTEGER,
    charged_ms   INTEGER,
    reason       TEXT
) STRICT;

-- For the recovery at every start: few rows, regardless of the length of the history.
CREATE INDEX leases_open ON leases (identity) WHERE ended_at IS NULL;
CREATE INDEX leases_identity ON leases (identity);

-- Owned by internal/lease: the runners that a crashed host may have left behind.
CREATE TABLE runners (
    instance   TEXT    NOT NULL PRIMARY KEY,
    space      TEXT    NOT NULL,
    pid        INTEGER NOT NULL,
    start      INTEGER NOT NULL,
    boot_id    TEXT    NOT NULL DEFAULT '',
    marker     TEXT    NOT NULL DEFAULT '',
    started_at INTEGER NOT NULL
) STRICT;

-- Owned by quota, like all tables below. The latest window of an identity is the one with the highest id, regardless of
-- the clock. Only the trigger ledger_sums updates the three sums.
CREATE TABLE windows (
    id         INTEGER NOT NULL PRIMARY KEY,
    identity   TEXT    NOT NULL,
    opened_at  INTEGER,
    ends_at    INTEGER,
    held_ms    INTEGER NOT NULL DEFAULT 0,
    charged_ms INTEGER NOT NULL DEFAULT 0,
    granted_ms INTEGER NOT NULL DEFAULT 0,
    CHECK ((opened_at IS NULL) = (ends_at IS NULL))
) STRICT;

CREATE UNIQUE INDEX windows_unopened ON windows (identity) WHERE opened_at IS NULL;
CREATE INDEX windows_identity ON windows (identity, id);

-- hold:   held_ms is reserved for a lease.
-- settle: the reservation held_ms ends; charged_ms of it is paid, returned_ms is refunded.
-- grant:  an operator adds returned_ms to the tier's quota, for this window.
-- reset:  an operator refunds returned_ms, which is all that was charged in this window.
CREATE TABLE ledger (
    id          INTEGER NOT NULL PRIMARY KEY,
    at          INTEGER NOT NULL,
    identity    TEXT    NOT NULL,
    window_id   INTEGER NOT NULL REFERENCES windows (id),
    lease_id    TEXT,
    kind        TEXT    NOT NULL CHECK (kind IN ('hold', 'settle', 'grant', 'reset')),
    space       TEXT    NOT NULL DEFAULT '',
    task        TEXT    NOT NULL DEFAULT '',
    held_ms     INTEGER NOT NULL DEFAULT 0 CHECK (held_ms >= 0),
    charged_ms  INTEGER NOT NULL DEFAULT 0 CHECK (charged_ms >= 0),
    returned_ms INTEGER NOT NULL DEFAULT 0 CHECK (returned_ms >= 0),
    reason      TEXT    NOT NULL DEFAULT '',
    by_whom     TEXT    NOT NULL DEFAULT '',
    UNIQUE (lease_id, kind),
    CHECK ((kind IN ('hold', 'settle')) = (lease_id IS NOT NULL)),
    CHECK (kind <> 'settle' OR charged_ms + returned_ms = held_ms)
) STRICT;

CREATE INDEX ledger_identity ON ledger (identity, id);
CREATE INDEX ledger_window ON ledger (window_id);

-- The balance is the sum of the ledger. It is updated per entry instead of computed per query, because /schedule
-- reads it before every GPU call, and a day of short calls has tens of thousands of entries.
-- +goose StatementBegin
CREATE TRIGGER ledger_sums AFTER INSERT ON ledger
BEGIN
    UPDATE windows SET
        held_ms    = held_ms    + CASE NEW.kind WHEN 'hold'   THEN NEW.held_ms
                                                WHEN 'settle' THEN -NEW.held_ms     ELSE 0 END,
        charged_ms = charged_ms + CASE NEW.kind WHEN 'settle' THEN NEW.charged_ms
                                                WHEN 'reset'  THEN -NEW.returned_ms ELSE 0 END,
        granted_ms = granted_ms + CASE NEW.kind WHEN 'grant'  THEN NEW.returned_ms  ELSE 0 END
    WHERE id = NEW.window_id;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append only');
END;
-- +goose StatementEnd
