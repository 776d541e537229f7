-- What a read store knows about itself. The tables of views are not made here: they follow the views' specifications.
CREATE TABLE meta (
    one             bigint NOT NULL PRIMARY KEY CHECK (one = 1),
    -- The number of the last migration.
    format          bigint NOT NULL,
    -- The oldest program that may still use it, by the last migration it knows: a migration that only adds leaves it.
    usable_from     bigint NOT NULL,
    -- The log whose fold this is; null until the store is first opened for one.
    log_id          text,
    -- The specification of the view tables, as JSON; empty before the first.
    tables          text NOT NULL,
    -- Counts how often the view tables were made anew, so that a worker that outlived a rebuild is found out.
    generation      bigint NOT NULL
);

INSERT INTO meta (one, format, usable_from, log_id, tables, generation) VALUES (1, 1, 1, NULL, '', 0);

-- Half empty pages: a checkpoint moves many times a second, and stays on its page.
CREATE TABLE checkpoints (
    "partition"     bigint NOT NULL PRIMARY KEY,
    next_offset     bigint NOT NULL,
    epoch           bigint NOT NULL,
    -- An unsigned 64-bit number, its bits read as a signed one: only ever compared for equality.
    nonce           bigint NOT NULL,
    next_seq        bigint NOT NULL,
    open            bigint NOT NULL CHECK (open IN (0, 1))
) WITH (fillfactor = 50);

-- Processes that feed this store, while they say so. All times are this database's.
CREATE TABLE members (
    holder          text NOT NULL PRIMARY KEY,
    -- What the process calls itself, for people.
    name            text NOT NULL,
    expires_at      timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Who feeds which partition, until when. A hint: what protects the rows is the checkpoint.
CREATE TABLE docket_leases (
    "partition"     bigint NOT NULL PRIMARY KEY,
    holder          text NOT NULL,
    name            text NOT NULL,
    -- Rises with every change of hands.
    token           bigint NOT NULL,
    expires_at      timestamptz NOT NULL
) WITH (fillfactor = 50);
