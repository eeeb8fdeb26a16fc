"""What it takes to run on Flink and Spark: class paths, job servers, worker pools, the local stack."""
