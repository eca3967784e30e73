-- Times are microseconds since 1970, UTC. Texts are compared byte by byte.
--
-- Where an id comes first in a primary key, it is for the writer: ids begin with their time, so that new rows of all
-- shops go to one end of the tree. With the shop first, each of 500 shops has a page of its own to be written, which
-- costs the writer half as much again.

-- +goose Up

-- With a row id: payloads are large, and SQLite keeps little of a large row in the tree of a primary key.
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
    accepted_at  INTEGER NOT NULL,
    data         BLOB, -- the payload, byte for byte
    PRIMARY KEY (id, shop_id)
) STRICT;

-- What was decided about events. Not in their rows: the two come separately, and to change a row that holds a payload
-- costs as much as to write it.
CREATE TABLE decisions (
    shop_id    TEXT NOT NULL,
    event_id   TEXT NOT NULL,
    event_type TEXT NOT NULL,
    at         INTEGER NOT NULL,
    decision   BLOB NOT NULL, -- a shopbell.bus.v1.Decision; it names the event's deliveries
    PRIMARY KEY (event_id, shop_id)
) STRICT, WITHOUT ROWID;

-- One row for a delivery: the last attempt, the last change without an attempt, and the status they amount to.
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
    PRIMARY KEY (id, shop_id)
) STRICT, WITHOUT ROWID;

-- The two lists, newest first. Of an event's deliveries there is no index: its decision names them.
CREATE INDEX deliveries_by_shop ON deliveries (shop_id, id);
CREATE INDEX deliveries_by_webhook ON deliveries (shop_id, webhook_id, id);

CREATE TABLE attempts (
    shop_id     TEXT NOT NULL,
    delivery_id TEXT NOT NULL,
    number      INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    record      BLOB NOT NULL, -- a shopbell.bus.v1.AttemptMade
    PRIMARY KEY (delivery_id, number, started_at, shop_id)
) STRICT;

CREATE TABLE changes (
    shop_id     TEXT NOT NULL,
    delivery_id TEXT NOT NULL,
    at          INTEGER NOT NULL,
    status      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    PRIMARY KEY (delivery_id, at, status, shop_id)
) STRICT, WITHOUT ROWID;
