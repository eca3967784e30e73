-- +goose Up

-- What is old is forgotten by dropping the tables that hold it, which costs nothing and gives the disk back at once. So
-- each table is many, parted by when the event was accepted: the same for everything that is known of a delivery, whose
-- id tells it, so that a row that is written again meets itself.

-- The spans of time that have tables: days, and less where a day was too large. Some tables may have been dropped already.
CREATE TABLE parts (
    lo timestamptz PRIMARY KEY,
    hi timestamptz NOT NULL
);

-- On a day with deliveries that were matched more than a minute after their events were accepted: the longest such time.
-- It tells how far back from a time of matching ids are to be looked for.
CREATE TABLE lateness (
    day  date PRIMARY KEY,
    late interval NOT NULL
);

ALTER TABLE events DROP CONSTRAINT events_pkey;
ALTER TABLE events RENAME TO events_1;
ALTER TABLE decisions DROP CONSTRAINT decisions_pkey;
ALTER TABLE decisions RENAME TO decisions_1;
ALTER TABLE deliveries DROP CONSTRAINT deliveries_pkey;
DROP INDEX deliveries_by_webhook;
ALTER TABLE deliveries RENAME TO deliveries_1;
ALTER TABLE attempts DROP CONSTRAINT attempts_pkey;
ALTER TABLE attempts RENAME TO attempts_1;
ALTER TABLE changes DROP CONSTRAINT changes_pkey;
ALTER TABLE changes RENAME TO changes_1;

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
    PRIMARY KEY (id, shop_id, accepted_at)
) PARTITION BY RANGE (accepted_at);

-- What was decided about events. Not in their rows: the two come separately, and to change a row that holds a payload
-- costs as much as to write it. There may be two rows of one event, of which a reader makes one.
CREATE TABLE decisions (
    shop_id    text COLLATE "C" NOT NULL,
    event_id   text COLLATE "C" NOT NULL,
    event_type text NOT NULL,
    at         timestamptz NOT NULL,
    decision   bytea NOT NULL, -- a shopbell.bus.v1.Decision; it names the event's deliveries
    born       timestamptz NOT NULL, -- of the first of these deliveries; without any: at
    PRIMARY KEY (event_id, shop_id, born)
) PARTITION BY RANGE (born);

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
    born               timestamptz NOT NULL, -- the time in the id; 1970 for an id without one
    PRIMARY KEY (shop_id, id, born)
) PARTITION BY RANGE (born);

-- Of an event's deliveries there is no index: its decision names them.
CREATE INDEX deliveries_by_webhook ON deliveries (shop_id, webhook_id, id);
CREATE INDEX deliveries_by_type ON deliveries (shop_id, event_type, id);

-- The few that somebody looks for: all but those that were delivered with a 2xx.
CREATE INDEX deliveries_troubled ON deliveries (shop_id, id, webhook_id, event_type, created_at, status, response_code, error_class)
    WHERE status <> 'delivered' OR response_code NOT BETWEEN 200 AND 299 OR error_class <> '';

CREATE TABLE attempts (
    shop_id     text COLLATE "C" NOT NULL,
    delivery_id text COLLATE "C" NOT NULL,
    number      integer NOT NULL,
    started_at  timestamptz NOT NULL,
    record      bytea NOT NULL, -- a shopbell.bus.v1.AttemptMade
    born        timestamptz NOT NULL,
    PRIMARY KEY (delivery_id, number, started_at, shop_id, born)
) PARTITION BY RANGE (born);

CREATE TABLE changes (
    shop_id     text COLLATE "C" NOT NULL,
    delivery_id text COLLATE "C" NOT NULL,
    at          timestamptz NOT NULL,
    status      text NOT NULL,
    reason      text NOT NULL,
    born        timestamptz NOT NULL,
    PRIMARY KEY (delivery_id, at, status, shop_id, born)
) PARTITION BY RANGE (born);

-- log_part makes the tables for rows of a time, unless they are there: for what is free of its day. They are made apart and
-- then attached, which lets others write meanwhile. The lock is "shopbell" as a number, plus one.
-- +goose StatementBegin
CREATE FUNCTION log_part(t timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    day timestamptz := date_trunc('day', t AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
    part_lo timestamptz;
    part_hi timestamptz;
    parent text;
    part text;
BEGIN
    PERFORM pg_advisory_xact_lock(x'73686f7062656c6d'::bigint);
    IF EXISTS (SELECT FROM parts WHERE lo <= t AND t < hi) THEN
        RETURN;
    END IF;
    SELECT coalesce(max(hi), day) INTO part_lo FROM parts WHERE hi > day AND hi <= t;
    SELECT coalesce(min(lo), day + interval '24 hours') INTO part_hi FROM parts WHERE lo > t AND lo < day + interval '24 hours';
    FOREACH parent IN ARRAY ARRAY['events', 'decisions', 'deliveries', 'attempts', 'changes'] LOOP
        part := parent || to_char(part_lo AT TIME ZONE 'UTC', '_YYYYMMDD_HH24MI');
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING STORAGE)', part, parent);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, part, part_lo, part_hi);
    END LOOP;
    INSERT INTO parts VALUES (part_lo, part_hi);
END $$;

-- log_1_born is the time in a delivery's id, for the rows of before alone.
CREATE FUNCTION log_1_born(id text) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    ms bigint := 0;
BEGIN
    IF id !~ '^dlv_[0-7][0-9A-HJKMNP-TV-Z]{25}$' THEN
        RETURN to_timestamp(0);
    END IF;
    FOR i IN 5..14 LOOP
        ms := ms * 32 + position(substr(id, i, 1) IN '0123456789ABCDEFGHJKMNPQRSTVWXYZ') - 1;
    END LOOP;
    RETURN to_timestamp(ms / 1000) + (ms % 1000) * interval '1 millisecond';
END $$;
-- +goose StatementEnd

-- Which delivery a decision names first is not for SQL to say: its rows of before lie where their events lie, or else
-- where they were decided.
SELECT log_part(t) FROM (
    SELECT DISTINCT date_trunc('day', accepted_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS t FROM events_1
    UNION SELECT DISTINCT date_trunc('day', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' FROM decisions_1
    UNION SELECT DISTINCT date_trunc('day', log_1_born(id) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' FROM deliveries_1
    UNION SELECT DISTINCT date_trunc('day', log_1_born(delivery_id) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' FROM attempts_1
    UNION SELECT DISTINCT date_trunc('day', log_1_born(delivery_id) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' FROM changes_1
) AS days;
INSERT INTO events SELECT * FROM events_1;
INSERT INTO decisions SELECT d.*, coalesce(e.accepted_at, d.at) FROM decisions_1 d
    LEFT JOIN events_1 e ON e.id = d.event_id AND e.shop_id = d.shop_id;
INSERT INTO deliveries SELECT *, log_1_born(id) FROM deliveries_1;
INSERT INTO attempts SELECT *, log_1_born(delivery_id) FROM attempts_1;
INSERT INTO changes SELECT *, log_1_born(delivery_id) FROM changes_1;
INSERT INTO lateness SELECT DISTINCT (created_at AT TIME ZONE 'UTC')::date, interval '8 days' FROM deliveries_1;

DROP FUNCTION log_1_born;
DROP TABLE events_1, decisions_1, deliveries_1, attempts_1, changes_1;
