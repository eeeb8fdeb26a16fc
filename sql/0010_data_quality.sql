-- How good the records of a dataset were, a row a window and partition of the log.
CREATE TABLE data_quality_ts (
    time           timestamptz NOT NULL,  -- start of the window, in Kafka time
    dataset        text        NOT NULL,  -- of the suite: market, news, ...
    partition      integer     NOT NULL,  -- of the log; -1: all
    window_seconds integer     NOT NULL CHECK (window_seconds > 0),
    records        bigint      NOT NULL CHECK (records >= 0),  -- valid ones
    sampled        bigint      NOT NULL CHECK (sampled BETWEEN 0 AND records),
    score          double precision CHECK (score BETWEEN 0 AND 1),  -- null: there was nothing to judge
    expectations   integer     NOT NULL,
    failures       text[]      NOT NULL,  -- expectations that did not hold, a sentence each
    incidents      text[]      NOT NULL,  -- what was missing, repeated, late or otherwise not as usual
    PRIMARY KEY (dataset, time, window_seconds, partition)
);

CREATE INDEX data_quality_ts_time ON data_quality_ts (time);
