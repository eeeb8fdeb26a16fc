-- As the anomalies: chunks of a week; compressed after a month; dropped after two years.
SELECT create_hypertable('data_quality_ts', by_range('time', INTERVAL '7 days'), create_default_indexes => false, migrate_data => true);

ALTER TABLE data_quality_ts SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'dataset', timescaledb.orderby = 'time DESC');

CALL add_columnstore_policy('data_quality_ts', after => INTERVAL '30 days');

SELECT add_retention_policy('data_quality_ts', drop_after => INTERVAL '2 years');
