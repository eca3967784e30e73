-- +goose Up

-- What is held, failed or waits is looked for by that, and nothing is found as quickly as much: deliveries_troubled would be
-- read to its end.
CREATE INDEX deliveries_by_status ON deliveries (shop_id, status, id) WHERE status <> 'delivered';
