"""Spark's own Kafka connector with a Python function that is called row by row, as the first brokers did.

Started by ``benchmarks.end_to_end`` in a process of its own, because the connector's jars have to be
present when Spark starts: ``python -m benchmarks.connector SERVERS N``. The function decodes a packet with
fastavro and returns a few of its fields; rows go to Parquet. No features, no model, no database.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf

from benchmarks.setting import FRAME_BYTES
from lightcurves.schemas import package_schemas

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PACKAGE = "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0"  # any of the line that pyspark is of
FIELDS = "dia_source_id bigint, ra_deg double, dec_deg double, n_points int"


def decoded(packet: bytes) -> tuple[int, float, float, int]:
    """Return a few fields of one packet."""
    schema = package_schemas().schema(1000)
    assert schema is not None
    alert: Any = fastavro.schemaless_reader(io.BytesIO(packet[FRAME_BYTES:]), schema, None)
    source = alert["diaSource"]
    n_points = len(alert["prvDiaSources"] or ()) + len(alert["prvDiaForcedSources"] or ())
    return source["diaSourceId"], source["ra"], source["dec"], n_points


def run(servers: str, topic: str, at_most: int, folder: Path) -> float:
    """Return alerts a second, the time of Spark's start not counted."""
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.jars.packages", PACKAGE)
        .config("spark.jars.ivy", str(folder / "ivy"))
        .config("spark.ui.enabled", "false")
        .config("spark.log.level", "ERROR")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .getOrCreate()
    )
    spent = {"n": 0, "begin": 0.0, "end": 0.0}

    def write(frame: DataFrame, batch_id: int) -> None:
        frame.write.parquet(str(folder / "rows" / str(batch_id)))
        n = spark.read.parquet(str(folder / "rows" / str(batch_id))).count()
        if batch_id == 0:  # starts the Python workers
            spent["begin"] = time.perf_counter()
            return
        spent["n"] += n
        spent["end"] = time.perf_counter()

    reader = spark.readStream.format("kafka").option("kafka.bootstrap.servers", servers)
    rows = (
        reader.option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", str(at_most))
        .load()
        .select(udf(decoded, FIELDS)("value").alias("alert"))
        .select("alert.*")
    )
    query = (
        rows.writeStream.foreachBatch(write)
        .option("checkpointLocation", str(folder / "checkpoint"))
        .start()
    )
    while spent["n"] < 2 * at_most and query.isActive:
        time.sleep(0.2)
    query.stop()
    spark.stop()
    return spent["n"] / (spent["end"] - spent["begin"])


def main() -> None:
    """Run and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("servers")
    parser.add_argument("at_most", type=int)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="noctule-bench-"))
    try:
        print(json.dumps({"alerts_per_s": run(args.servers, "alerts", args.at_most, folder)}))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
