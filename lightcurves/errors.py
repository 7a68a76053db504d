"""The exceptions of noctule: one root, and one class per decision that the caller can take."""

from __future__ import annotations


class NoctuleError(Exception):
    """Any error that noctule raises on purpose; ``str()`` is one line that says what to do."""


class ConfigurationError(NoctuleError):
    """Something is set up wrongly: stop at the start and tell the operator."""


class UnavailableError(NoctuleError):
    """A service does not answer: wait, try again, count it.

    Parameters
    ----------
    service
        What is unavailable, as an operator calls it: "database", "Kafka".
    hint
        What happened and what to do about it.
    """

    def __init__(self, service: str, hint: str) -> None:
        super().__init__(f"{service} is not available: {hint}")
        self.service = service
        self.hint = hint
