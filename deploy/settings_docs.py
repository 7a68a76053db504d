"""Writes ``docs/settings.md`` from the code: ``python -m deploy.settings_docs > docs/settings.md``.

A test compares the two, so no setting is undocumented and no default is described wrongly.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic.fields import FieldInfo

from deploy.sections import Settings, section_class
from deploy.settings import environment_name

_INTRODUCTION: Final = """\
# Settings

Written by `python -m deploy.settings_docs > docs/settings.md`; change `deploy/sections.py` instead.

Every setting has a default: `make demo` needs none of them. A value is looked for in this order, and
the first place that has it wins:

1. the command line: `noctule --set stream.name=night2 ...`;
2. the environment: `NOCTULE_STREAM__NAME=night2` (`NOCTULE_`, then section and name with two
   underscores between them; lists as `a,b`; an empty value counts as not set);
3. the settings file, in TOML: the file that `noctule --config FILE` or `NOCTULE_CONFIG` names, else
   `<state>/noctule.toml` if there is one;
4. the default. `<state>` is the value of `state`.

```toml
[kafka]
bootstrap_servers = "broker-1:9093,broker-2:9093"
client.security.protocol = "SASL_SSL"
client.sasl.username = "noctule"

[store]
url = "postgresql://noctule@db.example.org/noctule"
```

Passwords are best left to the environment. They are never printed, by no command and in no error.
`noctule check-config` lists every problem at once, misspelt keys and variables with what was probably
meant, prints the settings that are in force, and exits non-zero if there is a problem.

Two more variables are no settings: `NOCTULE_CONFIG` names the settings file, and `NOCTULE_DATA` the
folder of real packets for the tests.
"""

_HEADER: Final = "| key | environment | default | meaning |\n|---|---|---|---|\n"


def settings_page() -> str:
    """The text of ``docs/settings.md``."""
    general = {
        name: field for name, field in Settings.model_fields.items() if not _is_section(field)
    }
    return "\n".join([_INTRODUCTION, _HEADER + _table("", general), *_sections()])


def _is_section(field: FieldInfo) -> bool:
    return section_class(field) is not None


def _sections() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        if section := section_class(field):
            title = f"## {name}\n\n{section.__doc__}\n"
            yield f"{title}\n{_HEADER}{_table(f'{name}.', section.model_fields)}"


def _table(prefix: str, fields: Mapping[str, FieldInfo]) -> str:
    return "".join(_row(f"{prefix}{name}", field) for name, field in fields.items())


def _row(key: str, field: FieldInfo) -> str:
    meaning = str(field.description).replace("|", "\\|")
    return f"| `{key}` | `{environment_name(key)}` | {_default(field)} | {meaning} |\n"


def _default(field: FieldInfo) -> str:
    if field.default_factory:
        return "`noctule` in the user's data folder"
    value = field.default
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return "not set" if value is None or not text else f"`{text}`"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
