"""The edges of the live path: Kafka in, Spark, the sinks, the accounting."""
