-- A second set of the view tables and checkpoints, so that one can be filled while the other is in use.
ALTER TABLE meta ADD COLUMN in_use INTEGER NOT NULL DEFAULT 0;
-- What the other set holds: empty, 'rebuilt' or 'kept'; and a number that rises whenever that becomes something else.
ALTER TABLE meta ADD COLUMN beside TEXT NOT NULL DEFAULT '';
ALTER TABLE meta ADD COLUMN beside_token INTEGER NOT NULL DEFAULT 0;
-- One bit a set: its indexes are made. Tables of the past have theirs.
ALTER TABLE meta ADD COLUMN indexed INTEGER NOT NULL DEFAULT 1;

CREATE TABLE checkpoints__b (
    "partition"     INTEGER NOT NULL PRIMARY KEY,
    next_offset     INTEGER NOT NULL,
    epoch           INTEGER NOT NULL,
    nonce           INTEGER NOT NULL,
    next_seq        INTEGER NOT NULL,
    open            INTEGER NOT NULL CHECK (open IN (0, 1))
) STRICT;

UPDATE meta SET format = 2;
