-- Articles with their sentiment.  Of versions of an article the one with the highest offset stands.
CREATE TABLE news_sentiment_ts (
    time               timestamptz        NOT NULL,  -- when it was published
    article_id         uuid               NOT NULL,
    symbols            text[]             NOT NULL,
    sentiment_score    numeric(5, 4)      CHECK (sentiment_score BETWEEN -1 AND 1),  -- null: not scored
    sentiment_category text,
    news_category      text               NOT NULL,
    source             text               NOT NULL,
    symbol_scores      double precision[] NOT NULL,  -- of each of symbols
    confidence         numeric(20, 8),
    kinds              text[]             NOT NULL,
    kind               text               NOT NULL,
    language           text               NOT NULL,
    title              text               NOT NULL,
    url                text,
    model              text               NOT NULL,
    known_at           timestamptz        NOT NULL,  -- log time of the record, or `time` if that is later
    partition          integer            NOT NULL,  -- where the raw record is in the log
    "offset"           bigint             NOT NULL,
    PRIMARY KEY (time, article_id)
);

CREATE INDEX news_sentiment_ts_symbols ON news_sentiment_ts USING gin (symbols);

-- What the news said of a symbol in [time - window_seconds, time), by when it was known: so whoever looks back sees
-- what could be seen then.  An article that was news before in the same window, perhaps in another outlet's words, is
-- among article_count, and in nothing else.
CREATE TABLE news_windows_ts (
    time              timestamptz NOT NULL,  -- the end of the window
    symbol            text        NOT NULL CHECK (symbol <> '' AND length(symbol) <= 20),
    window_seconds    integer     NOT NULL CHECK (window_seconds > 0),
    article_count     bigint      NOT NULL CHECK (article_count > 0),
    story_count       bigint      NOT NULL CHECK (story_count BETWEEN 1 AND article_count),
    positive_count    bigint      NOT NULL,
    negative_count    bigint      NOT NULL,
    sentiment         double precision CHECK (sentiment BETWEEN -1 AND 1),          -- mean of stories; null: none scored
    decayed_sentiment double precision CHECK (decayed_sentiment BETWEEN -1 AND 1),  -- the newer, the more weight
    newest_at         timestamptz NOT NULL,
    PRIMARY KEY (symbol, time, window_seconds)
);

CREATE INDEX news_windows_ts_time ON news_windows_ts (time);

-- How unusual the number of stories in a window is: against the mean of windows that ended one to seven days before
-- (those without news count as none), in standard deviations were they a Poisson process; null in a symbol's first day.
CREATE VIEW news_windows_surprise AS
SELECT *, (story_count - usual_count) / sqrt(usual_count + 1) AS surprise
FROM (
    SELECT *,
        CASE WHEN min(time) OVER past <= time - INTERVAL '24 h' THEN
            COALESCE(sum(story_count) OVER week, 0)
            / (1 + extract(epoch FROM LEAST(INTERVAL '144 h', time - INTERVAL '24 h' - min(time) OVER past))
                   / (window_seconds / CASE WHEN window_seconds > 3600 THEN 24 ELSE 12 END))
        END AS usual_count
    FROM news_windows_ts
    WINDOW past AS (PARTITION BY symbol, window_seconds ORDER BY time),
           week AS (PARTITION BY symbol, window_seconds ORDER BY time
                    RANGE BETWEEN INTERVAL '168 h' PRECEDING AND INTERVAL '24 h' PRECEDING)  -- no days, of 23 h perhaps
) AS counted;

-- Bars with the sentiment as of their end: of the newest windows that had ended then.  Null: no news in them.
CREATE VIEW market_bars_sentiment AS
SELECT bar.*,
    hour.sentiment AS sentiment_1h, hour.decayed_sentiment AS decayed_sentiment_1h, hour.story_count AS stories_1h,
    day.sentiment AS sentiment_24h, day.decayed_sentiment AS decayed_sentiment_24h, day.story_count AS stories_24h
FROM market_bars_ts AS bar
LEFT JOIN news_windows_ts AS hour
    ON hour.symbol = bar.symbol AND hour.window_seconds = 3600
    AND hour.time = date_bin(INTERVAL '5 minutes', bar.time + bar.bar_seconds * INTERVAL '1 s', 'epoch')
LEFT JOIN news_windows_ts AS day
    ON day.symbol = bar.symbol AND day.window_seconds = 86400
    AND day.time = date_bin(INTERVAL '1 hour', bar.time + bar.bar_seconds * INTERVAL '1 s', 'epoch');
