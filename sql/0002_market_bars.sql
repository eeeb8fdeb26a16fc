-- Bars with their indicators, stamped with their start.  A late tick overwrites its bar with the next revision.
-- Prices are null in a bar without any price-setting print.
CREATE TABLE market_bars_ts (
    time            timestamptz      NOT NULL,
    symbol          text             NOT NULL CHECK (symbol <> '' AND length(symbol) <= 20),
    bar_seconds     integer          NOT NULL CHECK (bar_seconds > 0),
    open            numeric(20, 8)   CHECK (open > 0 AND open <> 'NaN'),
    high            numeric(20, 8)   CHECK (high > 0 AND high <> 'NaN'),
    low             numeric(20, 8)   CHECK (low > 0 AND low <> 'NaN'),
    close           numeric(20, 8)   CHECK (close > 0 AND close <> 'NaN'),
    volume          bigint           NOT NULL CHECK (volume >= 0),
    vwap            numeric(20, 8),
    trade_count     bigint           NOT NULL CHECK (trade_count >= 0),
    sma_20          numeric(20, 8),
    sma_50          numeric(20, 8),
    rsi             double precision CHECK (rsi BETWEEN 0 AND 100),
    bollinger_upper numeric(20, 8),
    bollinger_lower numeric(20, 8),
    ema_12          numeric(20, 8),
    ema_26          numeric(20, 8),
    macd            numeric(20, 8),
    macd_signal     numeric(20, 8),
    atr_14          numeric(20, 8),
    revision        integer          NOT NULL CHECK (revision >= 0),
    is_final        boolean          NOT NULL,
    PRIMARY KEY (symbol, time, bar_seconds)
);

CREATE INDEX market_bars_ts_time ON market_bars_ts (time);
