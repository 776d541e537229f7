-- A second set of the view tables and checkpoints, so that one can be filled while the other is in use. Programs that do
-- not know of it work on until the other one comes into use for the first time.
ALTER TABLE meta ADD COLUMN in_use bigint NOT NULL DEFAULT 0;
-- What the other set holds: empty, 'rebuilt' or 'kept'; and a number that rises whenever that becomes something else.
ALTER TABLE meta ADD COLUMN beside text NOT NULL DEFAULT '';
ALTER TABLE meta ADD COLUMN beside_token bigint NOT NULL DEFAULT 0;
-- One bit a set: its indexes are made. Tables of the past have theirs.
ALTER TABLE meta ADD COLUMN indexed bigint NOT NULL DEFAULT 1;

CREATE TABLE checkpoints__b (
    "partition"     bigint NOT NULL PRIMARY KEY,
    next_offset     bigint NOT NULL,
    epoch           bigint NOT NULL,
    nonce           bigint NOT NULL,
    next_seq        bigint NOT NULL,
    open            bigint NOT NULL CHECK (open IN (0, 1))
) WITH (fillfactor = 50);
