"""Every strategy has a file of its own and a line in this one. Names are permanent: requests store them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from active_learning.strategies.base import Strategy
from active_learning.strategies.entropy import EntropyStrategy
from active_learning.strategies.margin import MarginStrategy
from lightcurves.errors import ConfigurationError

STRATEGIES: Final[dict[str, type[Any]]] = {
    kind.name: kind for kind in (EntropyStrategy, MarginStrategy)
}


def strategy_of(name: str, settings: Mapping[str, Any]) -> Strategy:
    """Return the strategy of that name, its thresholds taken from `settings`.

    Raises
    ------
    ConfigurationError
        There is none of that name.
    """
    if name not in STRATEGIES:
        raise ConfigurationError(f"no strategy {name!r}: choose one of {', '.join(STRATEGIES)}")
    kind = STRATEGIES[name]
    strategy: Strategy = kind(**{field.name: settings[field.name] for field in fields(kind)})
    return strategy
