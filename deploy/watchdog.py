"""Runs a program that must not outlive the Python process that asked for it.

`EmbeddedKafka` starts ``python watchdog.py PARENT_PID PROGRAM...`` rather than the program itself.
Twice per second the watchdog checks whether its parent still exists and, if not (even after
SIGKILL), ends the program: SIGTERM first, SIGKILL after a grace period. A parent's id changes
only with the death of the whole process, so, unlike Linux's parent-death signal, this also
works when a thread started the program, and it works on macOS. The parent-death signal is used between
the watchdog, whose single thread lives as long as the watchdog, and the program: on Linux the program
dies with the watchdog at once. On macOS, to kill the watchdog, kill its process group.

It uses only the standard library, and is started by path, because it has to be up in milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

LOOK_EVERY_S = 0.5
GRACE_S = 10.0
PR_SET_PDEATHSIG = 1


def main(parent_pid: int, command: list[str]) -> int:
    """Run the command to its end, or to the parent's; returns its exit status."""
    program = subprocess.Popen(command, preexec_fn=_die_with_watchdog)  # noqa: PLW1509 - one thread
    signal.signal(signal.SIGTERM, lambda *_: program.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while os.getppid() == parent_pid:
        try:
            return program.wait(LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            continue
    return _end(program)


def _die_with_watchdog() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(program: subprocess.Popen[bytes]) -> int:
    program.terminate()
    try:
        return program.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        program.kill()
        return program.wait()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
