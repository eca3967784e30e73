-- +goose Up

-- What was counted of a webhook, or of a shop, in an hour or on a day. Its time comes first: so the rows that are written
-- now lie side by side, and those that are due to go, too.
CREATE TABLE stats (
    day        INTEGER NOT NULL, -- 0: an hour; 1: a day
    start      INTEGER NOT NULL,
    shop_id    TEXT NOT NULL,
    webhook_id TEXT NOT NULL, -- '': of the whole shop
    counts     BLOB NOT NULL, -- a shopbell.log.v1.Counts
    PRIMARY KEY (day, start, shop_id, webhook_id)
) STRICT, WITHOUT ROWID;
