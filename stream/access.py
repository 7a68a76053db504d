"""Checks access to Kafka, and translates its refusal of a login or certificate into advice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from lightcurves.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ADVICE: Final = {
    KafkaError._AUTHENTICATION: (  # noqa: SLF001 - librdkafka's name
        "it refuses the login: set sasl.mechanism, sasl.username and sasl.password in kafka.client"
    ),
    KafkaError._SSL: (  # noqa: SLF001
        "no TLS with it: set ssl.ca.location in kafka.client to the certificate of the authority that "
        "signed the broker's"
    ),
}
"""What to do, by the code of an error that retrying does not resolve."""

_ELSE: Final = (
    "is it running, and are kafka.bootstrap_servers and kafka.client (security.protocol) right?"
)
_LOOK_S: Final = 1.0


class Troubles:
    """Collects the connection errors that librdkafka reports; pass it to a client as ``error_cb``.

    Without it, a refused login looks the same as an unavailable broker.
    """

    def __init__(self) -> None:
        self._refusal: KafkaError | None = None
        self._last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Record an error; librdkafka calls this."""
        if error.code() in _ADVICE:
            self._refusal = error
        elif error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - adds nothing
            self._last = error

    def forget(self) -> None:
        """Forget all errors: a login that was refused may now succeed."""
        self._refusal = self._last = None

    @property
    def refused(self) -> bool:
        """Whether login or TLS failed: waiting does not help."""
        return self._refusal is not None

    def hint(self) -> str:
        """Return what to do, and librdkafka's own words."""
        if self._refusal is not None:
            return f"{_ADVICE[self._refusal.code()]} ({self._refusal.str()})"
        return _ELSE if self._last is None else f"{_ELSE} ({self._last.str()})"


def check_access(client: Mapping[str, Any], timeout_s: float) -> None:
    """Return when Kafka has answered.

    Parameters
    ----------
    client
        librdkafka settings, ``bootstrap.servers`` among them.
    timeout_s
        How long to wait for an answer; a refusal is raised as soon as it is known.

    Raises
    ------
    UnavailableError
        Kafka is unavailable, or it refuses the login, or its certificate is not trusted.
    ConfigurationError
        librdkafka does not accept the settings.
    """
    troubles = Troubles()
    admin = _admin(client, troubles)
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = max(0.1, deadline - time.monotonic())
        try:
            admin.list_topics(timeout=min(_LOOK_S, left_s))
        except KafkaException as error:
            admin.poll(0)  # delivers the errors that occurred meanwhile
            if troubles.refused or time.monotonic() >= deadline:
                servers = client["bootstrap.servers"]
                raise UnavailableError(f"Kafka at {servers}", troubles.hint()) from error
        else:
            return


def _admin(client: Mapping[str, Any], troubles: Troubles) -> AdminClient:
    settings: dict[str, Any] = {"log_level": 0, **client, "error_cb": troubles}
    try:
        return AdminClient(settings)
    except KafkaException as error:
        raise ConfigurationError(f"kafka.client: {error.args[0].str()}") from error
