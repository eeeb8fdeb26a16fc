-- As the bars: chunks of a week, since there are few; compressed after a month; dropped after two years.
SELECT create_hypertable('market_anomalies_ts', by_range('time', INTERVAL '7 days'), create_default_indexes => false, migrate_data => true);

ALTER TABLE market_anomalies_ts SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol', timescaledb.orderby = 'time DESC');

CALL add_columnstore_policy('market_anomalies_ts', after => INTERVAL '30 days');

SELECT add_retention_policy('market_anomalies_ts', drop_after => INTERVAL '2 years');
