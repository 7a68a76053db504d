"""Measurements as commands: ``python -m benchmarks.NAME`` prints what against what, then JSON."""

import os

# As the command does: LightGBM's threads must not spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
