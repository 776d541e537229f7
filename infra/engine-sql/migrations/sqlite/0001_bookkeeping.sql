-- What a read store knows about itself. The tables of views are not made here: they follow the views' specifications.
CREATE TABLE meta (
    one             INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    -- The number of the last migration.
    format          INTEGER NOT NULL,
    -- The log whose fold this is; null until the store is first opened for one.
    log_id          TEXT,
    -- The specification of the view tables, as JSON; empty before the first.
    tables          TEXT NOT NULL,
    -- Counts how often the view tables were made anew, so that a worker that outlived a rebuild is found out.
    generation      INTEGER NOT NULL
) STRICT;

INSERT INTO meta (one, format, log_id, tables, generation) VALUES (1, 1, NULL, '', 0);

CREATE TABLE checkpoints (
    "partition"     INTEGER NOT NULL PRIMARY KEY,
    next_offset     INTEGER NOT NULL,
    epoch           INTEGER NOT NULL,
    -- An unsigned 64-bit number, its bits read as a signed one: only ever compared for equality.
    nonce           INTEGER NOT NULL,
    next_seq        INTEGER NOT NULL,
    open            INTEGER NOT NULL CHECK (open IN (0, 1))
) STRICT;
