-- What was odd about a symbol's bars and ticks, as it was told then: late ticks change bars, but nothing here.
CREATE TABLE market_anomalies_ts (
    time        timestamptz      NOT NULL,  -- start of the bar in which it was
    symbol      text             NOT NULL CHECK (symbol <> '' AND length(symbol) <= 20),
    bar_seconds integer          NOT NULL CHECK (bar_seconds > 0),
    kind        text             NOT NULL,
    score       double precision NOT NULL,
    threshold   double precision NOT NULL,  -- from which score on it was told
    value       double precision NOT NULL,  -- what was odd: a price, volume, spread in bps, or bid
    reference   double precision NOT NULL,  -- what it was compared with
    explanation text             NOT NULL,
    detected_at timestamptz      NOT NULL,  -- Kafka timestamp of the record at which it showed
    partition   integer          NOT NULL,  -- where that record is in the log
    "offset"    bigint           NOT NULL,
    PRIMARY KEY (symbol, time, bar_seconds, kind)
);

CREATE INDEX market_anomalies_ts_time ON market_anomalies_ts (time);
