-- +goose Up

-- What is rare, or what nobody has, must not be looked for among all of a shop's deliveries. The planner does that at times: it
-- knows little of how the columns hang together, and of a statement that is used often it no longer looks at the values. It takes
-- no hint of an index, but "shop_id || ''" is one: no index of shop_id itself can answer a query that asks for it.
DROP INDEX deliveries_troubled;
CREATE INDEX deliveries_troubled ON deliveries
    ((shop_id || ''), id, webhook_id, event_type, created_at, status, response_code, error_class, attempts_made)
    WHERE status <> 'delivered' OR response_code NOT BETWEEN 200 AND 299 OR error_class <> '';

-- Most receivers answer 200, and who looks for another success looks for few, or for one code of many.
CREATE INDEX deliveries_by_success ON deliveries ((shop_id || ''), response_code, id, webhook_id, event_type)
    WHERE response_code > 200 AND response_code < 300;

-- A type that a webhook seldom has is found in the index alone.
DROP INDEX deliveries_by_webhook;
CREATE INDEX deliveries_by_webhook ON deliveries (shop_id, webhook_id, id, event_type);
