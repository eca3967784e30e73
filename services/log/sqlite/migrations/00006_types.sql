-- +goose Up

-- The days on which events were accepted of which a shop has deliveries, by their type. A list of a type goes through these
-- days' ids alone; an index would cost the writer a page for each type in a batch.
CREATE TABLE types (
    shop_id    TEXT NOT NULL,
    event_type TEXT NOT NULL,
    day        INTEGER NOT NULL, -- when it begins; 0 for deliveries whose id holds no time
    PRIMARY KEY (shop_id, event_type, day)
) STRICT, WITHOUT ROWID;

-- The first five of the ten digits in which an id holds its time tell it within 9.3 hours: a day too many does no harm.
INSERT INTO types
WITH seen AS (
    SELECT DISTINCT shop_id, event_type, CASE
        WHEN id GLOB 'dlv_[0-7]*' AND length(id) = 30 AND substr(id, 5) NOT GLOB '*[^0-9A-HJKMNP-TV-Z]*' THEN substr(id, 5, 5)
    END AS digits FROM deliveries
), since AS (
    SELECT shop_id, event_type, digits, coalesce((
        (instr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', substr(digits, 1, 1)) - 1) * 1048576 +
        (instr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', substr(digits, 2, 1)) - 1) * 32768 +
        (instr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', substr(digits, 3, 1)) - 1) * 1024 +
        (instr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', substr(digits, 4, 1)) - 1) * 32 +
        (instr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', substr(digits, 5, 1)) - 1)) * 33554432, 0) AS ms FROM seen
)
SELECT shop_id, event_type, ms / 86400000 * 86400000000 FROM since
UNION
SELECT shop_id, event_type, (ms + 33554431) / 86400000 * 86400000000 FROM since WHERE digits IS NOT NULL;
