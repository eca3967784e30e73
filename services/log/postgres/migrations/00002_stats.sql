-- +goose Up

-- What was counted of a webhook, or of a shop, in an hour or on a day. Its time comes first: so the rows that are written
-- now lie side by side, and those that are due to go, too. Rows are written again and again while their hour lasts: pages
-- have room for that beside them, which spares the index.
CREATE TABLE stats (
    day        boolean NOT NULL, -- false: an hour
    start      timestamptz NOT NULL,
    shop_id    text COLLATE "C" NOT NULL,
    webhook_id text COLLATE "C" NOT NULL, -- '': of the whole shop
    counts     bytea NOT NULL, -- a shopbell.log.v1.Counts
    PRIMARY KEY (day, start, shop_id, webhook_id)
) WITH (fillfactor = 70);
