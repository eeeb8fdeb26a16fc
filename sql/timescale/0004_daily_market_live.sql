-- The day so far, by UTC days.  Made of bars, not of ticks: first() and last() by time are arbitrary among the ticks of
-- one millisecond, whereas a symbol has one bar of a length at a time, whose open and close are settled.
-- Bars without prices set neither open nor close.
CREATE MATERIALIZED VIEW daily_market_live
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    time_bucket(INTERVAL '1 day', time)                  AS day,
    symbol,
    bar_seconds,
    first(open, time) FILTER (WHERE open IS NOT NULL)    AS open_price,
    max(high)                                            AS high_price,
    min(low)                                             AS low_price,
    last(close, time) FILTER (WHERE close IS NOT NULL)   AS close_price,
    sum(volume)                                          AS total_volume,
    sum(trade_count)                                     AS tick_count
FROM market_bars_ts
GROUP BY 1, symbol, bar_seconds
WITH NO DATA;

-- Whatever changed within the retained two years is refreshed, so that a replay of old days shows; only changed
-- stretches cost anything.
SELECT add_continuous_aggregate_policy('daily_market_live',
    start_offset => INTERVAL '700 days', end_offset => INTERVAL '1 hour', schedule_interval => INTERVAL '1 hour');
