-- +goose Up

-- Deliveries of events that were accepted before this time have been forgotten, and counted before: one that comes up again,
-- because it was still under way, is not counted anew.
CREATE TABLE forgotten (until INTEGER NOT NULL) STRICT;
INSERT INTO forgotten VALUES (0);
