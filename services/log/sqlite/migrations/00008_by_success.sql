-- +goose Up

-- Most receivers answer 200, and who looks for another success looks for few, or for one code of many.
CREATE INDEX deliveries_by_success ON deliveries (shop_id, response_code, id, webhook_id, event_type, created_at, status, error_class)
    WHERE response_code > 200 AND response_code < 300;
