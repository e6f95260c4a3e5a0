-- +goose Up

-- Owned by quota. A run is a GPU call that was granted a GPU. at is the time from which it counts, for 24 hours. It is NULL
-- while the lease is open and has had no GPU yet: the run is reserved. returned is 1 once an operator's reset has returned it.
-- A run is forgotten together with the ledger entries of its lease.
CREATE TABLE runs (
    lease_id TEXT    NOT NULL PRIMARY KEY,
    identity TEXT    NOT NULL,
    at       INTEGER,
    returned INTEGER NOT NULL DEFAULT 0 CHECK (returned IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE INDEX runs_identity ON runs (identity, at) WHERE returned = 0;

-- Owned by quota: prepaid seconds. carried_ms is what was left of the entries that were forgotten. The triggers
-- ledger_credits and ledger_credits_less update the sums. Left are carried_ms + bought_ms - used_ms - held_ms.
CREATE TABLE credits (
    identity   TEXT    NOT NULL PRIMARY KEY,
    carried_ms INTEGER NOT NULL DEFAULT 0,
    bought_ms  INTEGER NOT NULL DEFAULT 0,
    used_ms    INTEGER NOT NULL DEFAULT 0,
    held_ms    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- The credits that leases of this window were charged. held_ms and charged_ms are without credits.
ALTER TABLE windows ADD COLUMN credit_charged_ms INTEGER NOT NULL DEFAULT 0;

-- The table is created again because its CHECK lists the kinds.
-- hold:   held_ms is reserved for a lease, credit_held_ms of it from the credits.
-- settle: the reservation held_ms ends; charged_ms of it is paid, credit_charged_ms of that from the credits; returned_ms is
--         refunded. runs is 1 if the lease counts as a run.
-- grant:  an operator adds returned_ms to the tier's quota, for this window, and runs to its runs, for 24 hours.
-- reset:  an operator refunds returned_ms, which is all that was charged in this window without credits, and returns runs.
-- credit: an operator adds returned_ms to the credits.
CREATE TABLE ledger_new (
    id                INTEGER NOT NULL PRIMARY KEY,
    at                INTEGER NOT NULL,
    identity          TEXT    NOT NULL,
    window_id         INTEGER NOT NULL REFERENCES windows (id),
    lease_id          TEXT,
    kind              TEXT    NOT NULL CHECK (kind IN ('hold', 'settle', 'grant', 'reset', 'credit')),
    space             TEXT    NOT NULL DEFAULT '',
    task              TEXT    NOT NULL DEFAULT '',
    held_ms           INTEGER NOT NULL DEFAULT 0 CHECK (held_ms >= 0),
    charged_ms        INTEGER NOT NULL DEFAULT 0 CHECK (charged_ms >= 0),
    returned_ms       INTEGER NOT NULL DEFAULT 0 CHECK (returned_ms >= 0),
    reason            TEXT    NOT NULL DEFAULT '',
    by_whom           TEXT    NOT NULL DEFAULT '',
    via               TEXT    NOT NULL DEFAULT '',
    factor            INTEGER NOT NULL DEFAULT 1 CHECK (factor > 0),
    runs              INTEGER NOT NULL DEFAULT 0 CHECK (runs >= 0),
    credit_held_ms    INTEGER NOT NULL DEFAULT 0 CHECK (credit_held_ms BETWEEN 0 AND held_ms),
    credit_charged_ms INTEGER NOT NULL DEFAULT 0 CHECK (credit_charged_ms BETWEEN 0 AND min(charged_ms, credit_held_ms)),
    UNIQUE (lease_id, kind),
    CHECK ((kind IN ('hold', 'settle')) = (lease_id IS NOT NULL)),
    CHECK (kind <> 'settle' OR charged_ms + returned_ms = held_ms)
) STRICT;

INSERT INTO ledger_new (id, at, identity, window_id, lease_id, kind, space, task, held_ms, charged_ms, returned_ms, reason, by_whom, via, factor)
    SELECT id, at, identity, window_id, lease_id, kind, space, task, held_ms, charged_ms, returned_ms, reason, by_whom, via, factor FROM ledger;

DROP TABLE ledger; -- with its indexes and triggers
ALTER TABLE ledger_new RENAME TO ledger;

CREATE INDEX ledger_identity ON ledger (identity, id);
CREATE INDEX ledger_window ON ledger (window_id);
CREATE INDEX ledger_run_grants ON ledger (identity, at) WHERE kind = 'grant' AND runs > 0;

-- +goose StatementBegin
CREATE TRIGGER ledger_sums AFTER INSERT ON ledger
BEGIN
    UPDATE windows SET
        held_ms    = held_ms    + CASE NEW.kind WHEN 'hold'   THEN NEW.held_ms - NEW.credit_held_ms
                                                WHEN 'settle' THEN NEW.credit_held_ms - NEW.held_ms ELSE 0 END,
        charged_ms = charged_ms + CASE NEW.kind WHEN 'settle' THEN NEW.charged_ms - NEW.credit_charged_ms
                                                WHEN 'reset'  THEN -NEW.returned_ms ELSE 0 END,
        granted_ms = granted_ms + CASE NEW.kind WHEN 'grant'  THEN NEW.returned_ms  ELSE 0 END,
        credit_charged_ms = credit_charged_ms + NEW.credit_charged_ms,
        via_held_ms    = via_held_ms + CASE WHEN NEW.via = ''        THEN 0
                                            WHEN NEW.kind = 'hold'   THEN NEW.held_ms
                                            WHEN NEW.kind = 'settle' THEN -NEW.held_ms ELSE 0 END,
        via_charged_ms = CASE WHEN NEW.kind = 'reset' THEN 0
                              WHEN NEW.kind = 'settle' AND NEW.via <> '' THEN via_charged_ms + NEW.charged_ms
                              ELSE via_charged_ms END
    WHERE id = NEW.window_id;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER ledger_credits AFTER INSERT ON ledger WHEN NEW.kind = 'credit' OR NEW.credit_held_ms > 0
BEGIN
    INSERT INTO credits (identity) VALUES (NEW.identity) ON CONFLICT DO NOTHING;
    UPDATE credits SET
        bought_ms = bought_ms + CASE NEW.kind WHEN 'credit' THEN NEW.returned_ms ELSE 0 END,
        used_ms   = used_ms   + NEW.credit_charged_ms,
        held_ms   = held_ms   + CASE NEW.kind WHEN 'hold'   THEN NEW.credit_held_ms
                                              WHEN 'settle' THEN -NEW.credit_held_ms ELSE 0 END
    WHERE identity = NEW.identity;
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
WHEN NOT EXISTS (SELECT 1 FROM windows WHERE id = OLD.window_id AND forgetting = 1)
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append only');
END;
-- +goose StatementEnd

-- The sums equal the remaining entries, as in 0010.
-- +goose StatementBegin
CREATE TRIGGER ledger_sums_less AFTER DELETE ON ledger
BEGIN
    UPDATE windows SET
        held_ms    = held_ms    - CASE OLD.kind WHEN 'hold'   THEN OLD.held_ms - OLD.credit_held_ms
                                                WHEN 'settle' THEN OLD.credit_held_ms - OLD.held_ms ELSE 0 END,
        charged_ms = charged_ms - CASE OLD.kind WHEN 'settle' THEN OLD.charged_ms - OLD.credit_charged_ms
                                                WHEN 'reset'  THEN -OLD.returned_ms ELSE 0 END,
        granted_ms = granted_ms - CASE OLD.kind WHEN 'grant'  THEN OLD.returned_ms  ELSE 0 END,
        credit_charged_ms = credit_charged_ms - OLD.credit_charged_ms
    WHERE id = OLD.window_id;
END;
-- +goose StatementEnd

-- Credits have no window, so what forgotten entries have left is carried.
-- +goose StatementBegin
CREATE TRIGGER ledger_credits_less AFTER DELETE ON ledger WHEN OLD.kind = 'credit' OR OLD.credit_held_ms > 0
BEGIN
    UPDATE credits SET
        carried_ms = carried_ms + CASE OLD.kind WHEN 'credit' THEN OLD.returned_ms ELSE -OLD.credit_charged_ms END,
        bought_ms  = bought_ms  - CASE OLD.kind WHEN 'credit' THEN OLD.returned_ms ELSE 0 END,
        used_ms    = used_ms    - OLD.credit_charged_ms,
        held_ms    = held_ms    - CASE OLD.kind WHEN 'hold'   THEN OLD.credit_held_ms
                                                WHEN 'settle' THEN -OLD.credit_held_ms ELSE 0 END
    WHERE identity = OLD.identity;
END;
-- +goose StatementEnd

-- Overrides of a person, as in 0008; 0: no limit of runs.
ALTER TABLE people ADD COLUMN runs INTEGER CHECK (runs >= 0);
