"""Where a writer's schema comes from: the official package, a folder, or a registry.

A schema source maps the id in a packet's frame to the schema that wrote it. Rubin's ids are
``major * 100 + minor``: 1000 is version 10.0.
"""

from __future__ import annotations

import json
import lzma
import math
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Protocol

import fastavro
import fastavro.schema
from fastavro.repository.base import SchemaRepositoryError
from fastavro.schema import SchemaParseException

from lightcurves.errors import ConfigurationError, UnavailableError

Schema = dict[str, Any]

CONTAINER_MAGIC: Final = b"Obj\x01"
# What fastavro raises for a schema or a container file with a wrong byte somewhere.
BROKEN_AVRO: Final = (
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OSError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    RecursionError,
    lzma.LZMAError,
    SchemaParseException,
    SchemaRepositoryError,
    zlib.error,
)

_PACKAGE: Final = "lsst-alert-packet"
_HTTP_NOT_FOUND: Final = 404

ASK_AGAIN_S: Final = 30.0
"""An id that a registry did not know is requested again after this time: schemas are published any time."""


class SchemaSource(Protocol):
    """Provides schemas by the id in a packet's frame."""

    def schema(self, schema_id: int) -> Schema | None:
        """Return the schema of `schema_id`, or None if this source does not know the id."""
        ...


def version_of(schema_id: int) -> tuple[int, int]:
    """Return (major, minor) of one of Rubin's schema ids."""
    return divmod(schema_id, 100)


@dataclass(frozen=True)
class FolderSchemas:
    """A folder ``<major>/<minor>/lsst.v<major>_<minor>.alert.avsc`` and the files beside it."""

    folder: Path

    def schema(self, schema_id: int) -> Schema | None:
        """Return the schema in the folder; see :class:`SchemaSource`.

        Raises
        ------
        ConfigurationError
            The file is not an Avro schema of a record.
        UnavailableError
            It cannot be read now.
        """
        major, minor = version_of(schema_id)
        path = self.folder / str(major) / str(minor) / f"lsst.v{major}_{minor}.alert.avsc"
        try:
            if not path.is_file():
                return None
            path.read_bytes()
        except OSError as error:
            raise UnavailableError("schema folder", f"{path}: {error.strerror}") from error
        return schema_in(path)


def package_schemas() -> FolderSchemas:
    """Return the official schemas of the installed package ``lsst-alert-packet``.

    The package is never imported, only its ``.avsc`` files are read (it is GPL-3, see
    ``docs/decisions/0002-gpl-schemas.md``).

    Raises
    ------
    ConfigurationError
        The package is not installed.
    """
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise ConfigurationError(
            f"the package {_PACKAGE} is not installed: run 'make setup', or set schemas.source to "
            "'registry' or 'folder'"
        ) from error
    marker = next(file for file in files if file.name == "latest.txt")
    return FolderSchemas(Path(str(marker.locate())).parent)


@dataclass
class RegistrySchemas:
    """A Confluent-compatible schema registry over HTTP; each schema is requested once and then cached.

    Parameters
    ----------
    url
        The registry's base URL, to which ``/schemas/ids/<id>`` is added.
    timeout_s
        How long one request may take, in seconds.
    """

    url: str
    timeout_s: float = 5.0
    _known: dict[int, Schema] = field(default_factory=dict)
    _asked_s: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a URL that is not one of a registry."""
        if not self.url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"schemas.registry_url must begin with http:// or https://: {self.url}"
            )

    def schema(self, schema_id: int) -> Schema | None:
        """Return the registry's schema; see :class:`SchemaSource`.

        Raises
        ------
        UnavailableError
            The registry does not answer; a later call tries again.
        ConfigurationError
            What the registry has under this id is not an Avro record.
        """
        if schema_id in self._known:
            return self._known[schema_id]
        if time.monotonic() < self._asked_s.get(schema_id, -math.inf) + ASK_AGAIN_S:
            return None
        schema = self._ask(schema_id)
        if schema is None:
            self._asked_s[schema_id] = time.monotonic()
        else:
            self._known[schema_id] = schema
        return schema

    def _ask(self, schema_id: int) -> Schema | None:
        url = f"{self.url.rstrip('/')}/schemas/ids/{schema_id}"
        try:
            with urllib.request.urlopen(url, timeout=self.timeout_s) as answer:  # noqa: S310 - checked at the start
                text = json.load(answer)["schema"]
        except urllib.error.HTTPError as error:
            if error.code == _HTTP_NOT_FOUND:
                return None
            raise UnavailableError("schema registry", f"{url} answered {error.code}") from error
        except (HTTPException, *BROKEN_AVRO) as error:
            raise UnavailableError(
                "schema registry", f"{url} returned no schema: {error}"
            ) from error
        try:
            parsed = fastavro.schema.parse_schema(json.loads(text), _write_hint=False)
        except BROKEN_AVRO as error:
            raise ConfigurationError(f"{url} is not an Avro schema: {error}") from error
        return _record(parsed)


def schema_in(path: Path) -> Schema:
    """Return the schema in a file: an .avsc, or the one in an Avro container file.

    Raises
    ------
    ConfigurationError
        There is no such file, or it contains no schema of a record.
    """
    if not path.is_file():
        raise ConfigurationError(f"no schema file at {path}")
    try:
        with path.open("rb") as file:
            if file.read(len(CONTAINER_MAGIC)) == CONTAINER_MAGIC:
                file.seek(0)
                return _record(fastavro.block_reader(file).writer_schema)
        return _record(fastavro.schema.load_schema(str(path), _write_hint=False))
    except BROKEN_AVRO as error:
        raise ConfigurationError(f"{path} contains no Avro schema: {error}") from error


def _record(schema: object) -> Schema:
    if not isinstance(schema, dict):
        raise ConfigurationError("an alert's schema must be a record")
    return schema
