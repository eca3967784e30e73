-- Ids are compared byte by byte, as Go does it and as the order of their times needs it, whatever the database's language.

-- +goose Up

CREATE TABLE events (
    shop_id      text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    type         text NOT NULL,
    action       text NOT NULL,
    occurred_at  text NOT NULL, -- as the publisher wrote it
    environment  text NOT NULL,
    key          text NOT NULL,
    content_type text NOT NULL,
    trace_id     text NOT NULL,
    accepted_at  timestamptz NOT NULL,
    data         bytea, -- the payload, byte for byte
    PRIMARY KEY (id, shop_id)
);

-- What was decided about events. Not in their rows: the two come separately, and to change a row that holds a payload
-- costs as much as to write it.
CREATE TABLE decisions (
    shop_id    text COLLATE "C" NOT NULL,
    event_id   text COLLATE "C" NOT NULL,
    event_type text NOT NULL,
    at         timestamptz NOT NULL,
    decision   bytea NOT NULL, -- a shopbell.bus.v1.Decision; it names the event's deliveries
    PRIMARY KEY (event_id, shop_id)
);

-- One row for a delivery: the last attempt, the last change without an attempt, and the status they amount to.
-- Ids begin with their time, so that the primary key is also the order of the list.
CREATE TABLE deliveries (
    shop_id            text COLLATE "C" NOT NULL,
    id                 text COLLATE "C" NOT NULL,
    webhook_id         text COLLATE "C" NOT NULL,
    event_id           text COLLATE "C" NOT NULL,
    event_type         text NOT NULL,
    test               boolean NOT NULL,
    created_at         timestamptz NOT NULL,
    due                timestamptz,
    status             text NOT NULL,
    attempts_made      integer NOT NULL,
    response_code      integer NOT NULL, -- 0: the last attempt had no answer, or there is no attempt
    error_class        text NOT NULL,
    attempt_started_at timestamptz,
    attempt_at         timestamptz,      -- null: no attempt
    attempt_status     text,
    attempt_reason     text,
    next_attempt_at    timestamptz,
    change_at          timestamptz,      -- null: no change
    change_status      text,
    change_reason      text,
    PRIMARY KEY (shop_id, id)
);

-- Of an event's deliveries there is no index: its decision names them.
CREATE INDEX deliveries_by_webhook ON deliveries (shop_id, webhook_id, id);

CREATE TABLE attempts (
    shop_id     text COLLATE "C" NOT NULL,
    delivery_id text COLLATE "C" NOT NULL,
    number      integer NOT NULL,
    started_at  timestamptz NOT NULL,
    record      bytea NOT NULL, -- a shopbell.bus.v1.AttemptMade
    PRIMARY KEY (delivery_id, number, started_at, shop_id)
);

CREATE TABLE changes (
    shop_id     text COLLATE "C" NOT NULL,
    delivery_id text COLLATE "C" NOT NULL,
    at          timestamptz NOT NULL,
    status      text NOT NULL,
    reason      text NOT NULL,
    PRIMARY KEY (delivery_id, at, status, shop_id)
);
