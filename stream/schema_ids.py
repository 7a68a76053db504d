"""The schema ids in the frames of outgoing messages: given by a registry, and saved in a file."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx

from lightcurves.errors import ConfigurationError, UnavailableError
from store.urls import mask_password

if TYPE_CHECKING:
    from pathlib import Path

    from stream.messages import MessageSchema

LOG: Final = logging.getLogger(__name__)

IDS_FILE: Final = "noctule-schema-ids.json"
_MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_REFUSED: Final = range(300, 500)
_TOO_MANY: Final = 429


@dataclass(frozen=True)
class Registry:
    """A Confluent-compatible schema registry, and the file that saves its answers.

    A batch that is sent again, after a crash or on another day, has to get the same ids. A registry
    gives a known schema the same id; the file shows if it does not (for instance because it was
    set up anew), and replaces the registry while it is unavailable.

    Attributes
    ----------
    url
        Its address; may hold ``user:password``.
    timeout_s
        How long one request may take.
    kept
        The file; belongs to the checkpoint.
    """

    url: str = field(repr=False)
    timeout_s: float
    kept: Path

    def ids(self, schemas: dict[str, MessageSchema]) -> dict[str, int]:
        """Register the schemas of topics; return topic to id.

        Steps, in order: register each under ``<topic>-value`` (which does not change a schema that is already
        registered), compare with the file, add new ids to the file.

        Raises
        ------
        UnavailableError
            The registry does not answer, and an id is not in the file.
        ConfigurationError
            It refuses a schema, or gives it another id than before.
        """
        old = self._read()
        ids = {topic: self._id(f"{topic}-value", schema, old) for topic, schema in schemas.items()}
        new = {_key(f"{topic}-value", schemas[topic]): ids[topic] for topic in schemas}
        if new.items() - old.items():
            self._write(old | new)
        return ids

    def _id(self, subject: str, schema: MessageSchema, old: dict[str, int]) -> int:
        before = old.get(_key(subject, schema))
        try:
            schema_id = self._register(subject, schema.text)
        except UnavailableError as error:
            if before is None:
                raise
            LOG.warning("%s; going on with the id that it gave before, %d", error, before)
            return before
        if before not in {None, schema_id}:
            raise ConfigurationError(
                f"the schema registry gives {subject} the id {schema_id}, but messages already sent have "
                f"{before}: restore the registry, or remove {self.kept} to go on with new ids"
            )
        return schema_id

    def _register(self, subject: str, text: str) -> int:
        try:
            answer = httpx.post(
                f"{self.url.rstrip('/')}/subjects/{subject}/versions",
                content=json.dumps({"schema": text}),
                headers={"Content-Type": _MEDIA_TYPE},
                timeout=self.timeout_s,
            )
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"kafka.registry_url is no address: {error}") from error
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise UnavailableError(
                "schema registry", f"{self._name}: {why}: is kafka.registry_url right?"
            ) from error
        if answer.status_code in _REFUSED and answer.status_code != _TOO_MANY:
            raise ConfigurationError(
                f"the schema registry at {self._name} refuses the schema of {subject}: "
                f"{answer.status_code} {_reason_in(answer)}: look at kafka.registry_url, and at the rights "
                "and the compatibility rule that the registry has for this subject"
            )
        if not answer.is_success:
            raise UnavailableError("schema registry", f"{self._name} answers {answer.status_code}")
        return self._id_in(answer)

    def _id_in(self, answer: httpx.Response) -> int:
        try:
            return int(answer.json()["id"])
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigurationError(
                f"what answers at {self._name} is no Confluent-compatible schema registry: set "
                "kafka.registry_url to the address before /subjects"
            ) from error

    @property
    def _name(self) -> str:
        return mask_password(self.url)

    def _read(self) -> dict[str, int]:
        if not self.kept.is_file():
            return {}
        ids: dict[str, int] = json.loads(self.kept.read_text())
        return ids

    def _write(self, ids: dict[str, int]) -> None:
        draft = self.kept.with_suffix(".draft")
        draft.write_text(json.dumps(ids, indent=1))
        draft.rename(self.kept)


def _key(subject: str, schema: MessageSchema) -> str:
    """Return the file's key of an id; a new version of the schema has a key of its own."""
    return f"{subject} {hashlib.sha256(schema.text.encode()).hexdigest()[:16]}"


def _reason_in(answer: httpx.Response) -> Any:
    """Return the registry's own message, in one line."""
    try:
        words = answer.json()["message"]
    except (ValueError, LookupError, TypeError):
        words = answer.reason_phrase
    return " ".join(str(words).split())[:200]
