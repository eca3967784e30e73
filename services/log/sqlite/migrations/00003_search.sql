-- +goose Up

-- A list is found in its index alone, which holds what is filtered by, and only what stands on the page is read from the
-- table: rows of one shop lie far apart there.
DROP INDEX deliveries_by_shop;
DROP INDEX deliveries_by_webhook;
CREATE INDEX deliveries_by_shop ON deliveries (shop_id, id, event_type, created_at);
CREATE INDEX deliveries_by_webhook ON deliveries (shop_id, webhook_id, id, event_type, created_at);

-- The few that somebody looks for: all but those that were delivered with a 2xx.
CREATE INDEX deliveries_troubled
    ON deliveries (shop_id, id, webhook_id, event_type, created_at, status, response_code, error_class, attempts_made)
    WHERE status <> 'delivered' OR response_code NOT BETWEEN 200 AND 299 OR error_class <> '';

-- On a day with deliveries that were matched more than a minute after their events were accepted: the longest such time.
-- It tells how far back from a time of matching ids are to be looked for.
CREATE TABLE lateness (
    day  INTEGER PRIMARY KEY, -- when it begins
    late INTEGER NOT NULL     -- microseconds
) STRICT;
INSERT INTO lateness SELECT DISTINCT created_at - created_at % 86400000000, 8 * 86400000000 FROM deliveries WHERE created_at > 0;
