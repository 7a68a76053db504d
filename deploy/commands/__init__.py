"""The commands, one module per group; :mod:`deploy.cli` has their names and order.

Each command imports what it needs when it runs, so that ``noctule --help`` does not wait for Spark.
"""
