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

-- A day of a symbol, as the daily batch computes it: of all its ticks, however late they came.
CREATE TABLE daily_market_summary (
    day                 timestamptz      NOT NULL,  -- its beginning, UTC
    symbol              text             NOT NULL CHECK (symbol <> '' AND length(symbol) <= 20),
    open_price          numeric(20, 8),
    high_price          numeric(20, 8),
    low_price           numeric(20, 8),
    close_price         numeric(20, 8),
    total_volume        bigint           NOT NULL CHECK (total_volume >= 0),
    vwap                numeric(20, 8),
    tick_count          bigint           NOT NULL CHECK (tick_count > 0),
    daily_return        double precision,           -- close over that of the last bar before the day, less 1
    realised_volatility double precision,           -- root of the sum of squared log returns of the day's bars
    mean_spread         numeric(20, 8),             -- ask less bid, of ticks that have both
    dollar_volume       double precision NOT NULL,
    largest_gap_ms      bigint           NOT NULL,  -- between two ticks
    late_share          double precision NOT NULL CHECK (late_share BETWEEN 0 AND 1),
    PRIMARY KEY (symbol, day)
);

CREATE INDEX daily_market_summary_day ON daily_market_summary (day);
