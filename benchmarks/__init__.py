"""Measurements as commands: ``python -m benchmarks.NAME`` prints what against what, then JSON."""
