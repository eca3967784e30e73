-- +goose Up

-- To read the events of a time span in their order. The time comes first, so that new rows go to one end of the tree.
CREATE INDEX events_by_time ON events (accepted_at, shop_id, id);
