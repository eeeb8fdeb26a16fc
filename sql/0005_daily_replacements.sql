-- Which stretches of time the daily batch has replaced, and what that changed: one row a run, written with the rows.
CREATE TABLE daily_replacements (
    run          text        PRIMARY KEY,
    begin_time   timestamptz NOT NULL,
    end_time     timestamptz NOT NULL,
    symbols      text[],                -- null: all
    rows_removed bigint      NOT NULL,
    rows_changed bigint      NOT NULL,  -- new ones included
    replaced_at  timestamptz NOT NULL DEFAULT now()
);
