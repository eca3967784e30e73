-- Times are microseconds since 1970, UTC. Texts are compared byte by byte.

-- +goose Up

-- One row for an event, whichever comes first: the event itself or what was decided about it.
-- With its row id: payloads are large, and an index with large rows is slow to write.
CREATE TABLE events (
    shop_id      TEXT NOT NULL,
    id           TEXT NOT NULL,
    type         TEXT NOT NULL,
    action       TEXT NOT NULL,
    occurred_at  TEXT NOT NULL, -- as the publisher wrote it
    environment  TEXT NOT NULL,
    key          TEXT NOT NULL,
    content_type TEXT NOT NULL,
    trace_id     TEXT NOT NULL,
    accepted_at  INTEGER, -- null: the event itself is not here
    decided_at   INTEGER, -- null: what was decided is not here
    decision     BLOB,          -- a shopbell.bus.v1.Decision; it names the event's deliveries
    data         BLOB,          -- the payload, byte for byte
    PRIMARY KEY (shop_id, id)
) STRICT;

-- One row for a delivery: the last attempt, the last change without an attempt, and the status they amount to.
-- Ids begin with their time, so that the primary key is also the order of the list, and new rows go to its end.
CREATE TABLE deliveries (
    shop_id            TEXT NOT NULL,
    id                 TEXT NOT NULL,
    webhook_id         TEXT NOT NULL,
    event_id           TEXT NOT NULL,
    event_type         TEXT NOT NULL,
    test               INTEGER NOT NULL,
    created_at         INTEGER NOT NULL,
    due                INTEGER,
    status             TEXT NOT NULL,
    attempts_made      INTEGER NOT NULL,
    response_code      INTEGER NOT NULL, -- 0: the last attempt had no answer, or there is no attempt
    error_class        TEXT NOT NULL,
    attempt_started_at INTEGER,
    attempt_at         INTEGER,          -- null: no attempt
    attempt_status     TEXT,
    attempt_reason     TEXT,
    next_attempt_at    INTEGER,
    change_at          INTEGER,          -- null: no change
    change_status      TEXT,
    change_reason      TEXT,
    PRIMARY KEY (shop_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX deliveries_by_webhook ON deliveries (shop_id, webhook_id, id);

CREATE TABLE attempts (
    shop_id     TEXT NOT NULL,
    delivery_id TEXT NOT NULL,
    number      INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    record      BLOB NOT NULL, -- a shopbell.bus.v1.AttemptMade
    PRIMARY KEY (shop_id, delivery_id, number, started_at)
) STRICT;

CREATE TABLE changes (
    shop_id     TEXT NOT NULL,
    delivery_id TEXT NOT NULL,
    at          INTEGER NOT NULL,
    status      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    PRIMARY KEY (shop_id, delivery_id, at, status)
) STRICT, WITHOUT ROWID;
