"""Routes as settings give them, for tests."""

from __future__ import annotations

from stream.routes import Outgoing


def sent_to(
    classified: str,
    novel: str,
    requests: str,
    rejected: str,
    *,
    desc: str = "",
    novel_far: float = 0.01,
) -> Outgoing:
    """Return what the settings of these topics switch on."""
    topics = {
        "classified": classified,
        "novel": novel,
        "requests": requests,
        "rejected": rejected,
        "desc": desc,
    }
    settings = {f"{name}_topic": topic for name, topic in topics.items()}
    return Outgoing({**settings, "novel_far": novel_far})
