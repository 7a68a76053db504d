"""The commands, a module for each group of them; their names and order are in :mod:`deploy.cli`.

What a command needs is imported when it runs: ``noctule --help`` does not wait for Spark.
"""
