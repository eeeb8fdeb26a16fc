"""Market-data pipelines on Apache Beam: one set of transforms, unbounded on Flink and bounded on Spark."""
