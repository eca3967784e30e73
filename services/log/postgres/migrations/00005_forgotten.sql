-- +goose Up

-- Deliveries of events that were accepted before this time have been forgotten, and counted before: one that comes up again,
-- because it was still under way, is not counted anew.
CREATE TABLE forgotten (until timestamptz NOT NULL);
INSERT INTO forgotten VALUES ('1970-01-01T00:00:00Z');
