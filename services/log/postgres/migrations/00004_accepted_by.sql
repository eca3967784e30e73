-- +goose Up

-- The key that an event was published with, by its name.
ALTER TABLE events ADD COLUMN accepted_by text NOT NULL DEFAULT '';
