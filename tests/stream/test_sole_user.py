"""Two streams on one checkpoint: the second says who was first, and leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightcurves.errors import ConfigurationError
from stream.job import sole_user

HOLD = """
import sys, time
from pathlib import Path
from stream.job import sole_user
with sole_user(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_stream_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ConfigurationError, match=f"process {first.pid} on .* uses"):
            sole_user(tmp_path).__enter__()
        first.send_signal(signal.SIGKILL)
    with sole_user(tmp_path):
        pass
    with sole_user(tmp_path):
        pass
