-- Enriched ticks, one row each.  Two trades in one millisecond are two rows, hence source and seq in the identity.
-- Types: TEXT, because VARCHAR(n) only adds a second limit beside the validation's; NUMERIC(20,8) for whatever is in
-- units of price, small coins included; DOUBLE PRECISION for rsi, which has no unit and is kept as it was computed.
-- The constraints repeat what a valid tick is.  NaN is greater than every other NUMERIC, so it is named.
CREATE TABLE market_data_ts (
    time            timestamptz      NOT NULL,
    symbol          text             NOT NULL CHECK (symbol <> '' AND length(symbol) <= 20),
    source          text             NOT NULL,
    seq             bigint           NOT NULL,
    price           numeric(20, 8)   NOT NULL CHECK (price > 0 AND price <> 'NaN'),
    volume          bigint           NOT NULL CHECK (volume >= 0),
    bid             numeric(20, 8),
    ask             numeric(20, 8),
    bid_size        bigint,
    ask_size        bigint,
    sma_20          numeric(20, 8),
    sma_50          numeric(20, 8),
    rsi             double precision CHECK (rsi BETWEEN 0 AND 100),
    bollinger_upper numeric(20, 8),
    bollinger_lower numeric(20, 8),
    late            boolean          NOT NULL,
    partition       integer          NOT NULL,  -- where the raw record is in the log
    "offset"        bigint           NOT NULL,
    processed_at    timestamptz      NOT NULL,  -- log time of the record at which the tick was emitted
    PRIMARY KEY (symbol, time, source, seq)     -- also serves "one symbol, newest first"
);

-- Ticks arrive nearly in the order of time: a block range index finds a stretch of all symbols and costs writers little.
CREATE INDEX market_data_ts_time ON market_data_ts USING brin (time);
