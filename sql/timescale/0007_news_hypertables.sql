-- As for the market: dropped after two years; compressed after a month, because providers correct what they published.
SELECT create_hypertable('news_sentiment_ts', by_range('time', INTERVAL '7 days'), create_default_indexes => false, migrate_data => true);
SELECT create_hypertable('news_windows_ts', by_range('time', INTERVAL '7 days'), create_default_indexes => false, migrate_data => true);

ALTER TABLE news_windows_ts SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol', timescaledb.orderby = 'time DESC');

CALL add_columnstore_policy('news_windows_ts', after => INTERVAL '1 month');

SELECT add_retention_policy('news_sentiment_ts', drop_after => INTERVAL '2 years');
SELECT add_retention_policy('news_windows_ts', drop_after => INTERVAL '2 years');
