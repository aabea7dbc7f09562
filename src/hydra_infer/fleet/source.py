"""A hydra.yaml as text: its values, and the line of each field, so that whatever is wrong with one can say where it stands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..configs.disk import read
from ..configs.document import parse
from ..errors import ConfigError

if TYPE_CHECKING:
    from .schema import FleetFile

__all__ = ["Source", "near"]

Field = Sequence[str | int]


class Source:
    """One file. Nothing of a value is ever shown: it may be a key."""

    def __init__(self, path: str | Path) -> None:
        """Raises ConfigError for what is not YAML, MissingExtra where ruamel.yaml is not installed."""
        self.path = Path(path)
        if not self.path.exists():
            raise ConfigError(f"there is no {path}", hint="hydra-infer init URL… writes a first one")
        self._root = parse(read(self.path), str(path))

    @property
    def folder(self) -> Path:
        """What relative paths in the file are relative to."""
        return self.path.parent

    def read(self) -> FleetFile:
        """The checked tables. Raises ConfigError with a line for everything that is wrong."""
        from pydantic import ValidationError

        from .schema import FleetFile

        try:
            return FleetFile.model_validate(_plain(self._root))
        except ValidationError as error:
            wrong = [self._said(one["loc"], *_words(one)) for one in error.errors(include_input=False, include_url=False)]
            # The cause would show the values.
            raise ConfigError("\n".join(dict.fromkeys(wrong))) from None

    def wrong(self, field: Field, what: str, hint: str | None = None) -> ConfigError:
        """The error for one field, with file and line."""
        return ConfigError(self._said(field, what), hint=hint)

    def place(self, field: Field) -> str:
        """ "hydra.yaml:12: servers.tabby.url", as errors and warnings begin."""
        return f"{self.path}:{self._line(field)}: {'.'.join(map(str, field)) or 'the file'}"

    def _said(self, field: Field, what: str, hint: str = "") -> str:
        return f"{self.place(field)} {what}" + (f" ({hint})" if hint else "")

    def _line(self, field: Field) -> int:
        """The field's line from 1; that of the table around it where the field is not there."""
        node, line = self._root, 1
        for part in field:
            key = node.index(part) if isinstance(node, list) and part in node else part
            marks = getattr(getattr(node, "lc", None), "data", None) or {}
            if key not in marks:
                break
            line, node = marks[key][0] + 1, node[key]
        return line


def near(word: str, known: Iterable[str]) -> str:
    """The hint for a word that is not among the known ones: the near miss, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names) or 'none'}"


def _plain(node: Any, depth: int = 8) -> Any:
    """Dicts, lists, words and numbers, without what ruamel remembers of them. An alias within itself has no end."""
    if depth == 0:
        raise ConfigError("the file has more tables in each other than a fleet has use for")
    if isinstance(node, dict):
        return {key: _plain(value, depth - 1) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value, depth - 1) for value in node]
    return next((kind(node) for kind in (bool, int, float, str) if isinstance(node, kind)), node)


def _words(error: Any) -> tuple[str, str]:
    """pydantic's finding in our words, and a hint."""
    *_, last = error["loc"] or ("",)
    if error["type"] == "extra_forbidden":
        return "is not a field here", near(str(last), _fields_beside(error["loc"]))
    if error["type"] == "missing":
        return "is missing", ""
    if error["type"] in ("model_type", "dict_type"):
        return "is not a table of fields", ""
    if error["type"] == "literal_error":
        return f"is none of {error['ctx']['expected']}", ""
    if error["type"] == "hydra":
        return error["msg"], ""
    return f"is wrong: {error['msg'][:1].lower()}{error['msg'][1:]}", ""


def _fields_beside(loc: Sequence[str | int]) -> list[str]:
    """The fields of the table that an unknown one stands in."""
    from .schema import FleetFile

    table: Any = FleetFile
    for part in loc[:-1]:
        if part in table.model_fields:  # else it is a name, or a number in a list, of the same kind of table
            table = _table_in(table.model_fields[part].annotation) or table
    return list(table.model_fields)


def _table_in(annotation: Any) -> Any:
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((found for one in get_args(annotation) if (found := _table_in(one))), None)
