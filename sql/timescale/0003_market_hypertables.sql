-- Chunks of a day; compressed after a week, by symbol, newest first; dropped after two years.
-- The tables have their indexes by time already.
SELECT create_hypertable('market_data_ts', by_range('time', INTERVAL '1 day'), create_default_indexes => false, migrate_data => true);
SELECT create_hypertable('market_bars_ts', by_range('time', INTERVAL '1 day'), create_default_indexes => false, migrate_data => true);

ALTER TABLE market_data_ts SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol', timescaledb.orderby = 'time DESC');
ALTER TABLE market_bars_ts SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol', timescaledb.orderby = 'time DESC');

CALL add_columnstore_policy('market_data_ts', after => INTERVAL '7 days');
CALL add_columnstore_policy('market_bars_ts', after => INTERVAL '7 days');

SELECT add_retention_policy('market_data_ts', drop_after => INTERVAL '2 years');
SELECT add_retention_policy('market_bars_ts', drop_after => INTERVAL '2 years');
