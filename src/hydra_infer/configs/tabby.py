"""A linter for TabbyAPI's config.yml and a model folder's tabby_config.yml: the keys and values that do not do what they say.

TabbyAPI drops keys it does not know without a word, so a misspelt one is a setting that was never made.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from ..errors import ConfigError
from .document import flow, line_of, parse
from .finding import Finding
from .secrets import HIDDEN, is_secret
from .tabby_keys import AFTER, GONE, KEYS, OWNER, SECTIONS, STARTUP, Gone, Key, keys_at
from .tabby_sense import Said, sense
from .tabby_values import nearest, taken

__all__ = ["lint"]

_REWRITE = "the file is taken for an old one and rewritten at start: comments and unknown keys are left in config.yml.bak alone"


def lint(text: str, *, per_model: bool = False, version: str | None = None) -> list[Finding]:
    """What is wrong with the file, by line; an empty list where nothing is.

    `per_model`: the text is a tabby_config.yml, which lies in a model's folder and overrules config.yml and load requests.
    `version` is the ISO date of the TabbyAPI commit that will read it ("2026-03-30": `git log -1 --format=%cs`); left out,
    the newest known (tabby_keys.py says which) and behaviours that have changed since are named with their date.
    """
    _check_version(version)
    then = "the model does not load" if per_model else "TabbyAPI starts on its defaults: 127.0.0.1:5000 and no model"
    try:
        root = parse(text, "the file")
    except ConfigError as error:
        return [Finding(getattr(error, "line", None) or 1, "", "wrong", f"{error.message}; {then}", stops=True)]
    if root is None:
        return []
    if not isinstance(root, dict):
        return [Finding(1, "", "wrong", f"the file is not a table of sections; {then}", stops=True)]
    linter = _Linter(root, per_model, version)
    return sorted(linter.findings(), key=lambda finding: finding.line)


class _Linter:
    """One file on its way: what is found key by key, and the values that what they say together is judged by."""

    def __init__(self, root: dict[Any, Any], per_model: bool, version: str | None) -> None:
        self._root, self._per_model, self._version, self._keys = root, per_model, version, keys_at(version)
        self._values: dict[str, Any] = {}
        self._lines: dict[str, int] = {}

    def findings(self) -> Iterator[Finding]:
        for name, value in self._root.items():
            line = line_of(self._root, name)
            if name not in SECTIONS:
                yield from self._stray("", name, value, line)
            elif self._per_model and name not in ("model", "draft_model"):
                yield Finding(line, name, "inert", "a model's own file has only model and draft_model")
            elif isinstance(value, dict):
                for key, item in value.items():
                    yield from self._entry(name, key, item, line_of(value, key))
            elif value is not None:
                yield Finding(line, name, "wrong", f"must be a table; {_consequence(self._per_model)}", stops=True)
        yield from sense(Said(self._values, self._lines, self._keys, self._per_model, self._version))

    def _entry(self, section: str, name: str, value: Any, line: int) -> Iterator[Finding]:
        """One key of a known section."""
        path = f"{section}.{name}"
        key = self._keys.get(path)
        if key is None and path in KEYS:
            yield Finding(line, path, "unknown", f"came by {KEYS[path].since}; TabbyAPI of {self._version} drops it")
        elif key is None:
            # Of late, overrides of a sampling preset may stand in its section itself.
            if section != "sampling" or not self._after_the_table():
                yield from self._stray(section, name, value, line)
        elif self._per_model and name in STARTUP:
            yield Finding(line, path, "inert", "read from config.yml alone")
        elif value is not None:  # an empty value is an unset one
            try:
                self._values[path], self._lines[path] = taken(key, value), line
            except ConfigError as error:
                yield self._wrong(path, key, value, line, error.message)

    def _wrong(self, path: str, key: Key, value: Any, line: int, why: str) -> Finding:
        """A value that is not taken: of the wrong kind, or a word that is none of the key's."""
        better = nearest(key, value)
        if key.words and better is not None:  # what else the file says is judged by what was meant
            self._values[path], self._lines[path] = taken(key, better), line
        a_word = key.takes == "text" and isinstance(value, str)
        ending = key.otherwise if a_word and key.otherwise else _consequence(self._per_model)
        paste = None if better is None else _paste(path, better)
        return Finding(line, path, "wrong", f"{why}; {ending}", paste, key.stops or not a_word)

    def _stray(self, section: str, name: Any, value: Any, line: int) -> Iterator[Finding]:
        """A key that this section, or the file's top, does not have."""
        path = f"{section}.{name}" if section else str(name)
        if name == "speculative_decoding":
            yield Finding(line, path, "unknown", "never a section of TabbyAPI; drafting has its own", _draft_block(value))
        elif path in ("model.draft", "model.lora") and not self._per_model:
            yield Finding(line, path, "dangerous", _REWRITE, _block("draft_model" if name == "draft" else "lora", value))
        elif section == "logging" and not str(name).startswith("log_"):
            yield from self._old_logging(path, f"log_{name}", value, line)
        elif (owner := OWNER.get(str(name))) is not None:
            yield Finding(line, path, "misplaced", f"is read under {owner}:", _paste(f"{owner}.{name}", value))
        elif str(name) in SECTIONS:
            yield Finding(line, path, "misplaced", "is a section of its own, at the file's top", _block(str(name), value))
        elif (gone := GONE.get(str(name))) is not None:
            if not (self._version and self._version < gone.until):
                yield Finding(line, path, "unknown", gone.why, _replaced(gone, value))
        else:
            near = _near(section, str(name), value)
            newer = ", unless it is newer than this list of November 2026" if near is None and self._after_the_table() else ""
            yield Finding(line, path, "unknown", f"TabbyAPI drops it without a word{newer}", near)

    def _after_the_table(self) -> bool:
        return self._version is None or self._version >= AFTER

    def _old_logging(self, path: str, name: str, value: Any, line: int) -> Iterator[Finding]:
        known = f"logging.{name}" in KEYS
        why = _REWRITE if known or path not in GONE else f"{GONE[path].why}; {_REWRITE}"
        yield Finding(line, path, "dangerous", why, _paste(f"logging.{name}", value) if known else None)


def _consequence(per_model: bool) -> str:
    # The file in a model's folder is not checked: its values reach the loader as they stand.
    return "nothing checks it, and the load fails or goes its own way" if per_model else "TabbyAPI does not start with it"


def _check_version(version: str | None) -> None:
    try:
        date.fromisoformat(version or "2026-08-13")
    except ValueError:
        raise ConfigError(
            f"version={version!r} is not the date of a TabbyAPI commit", hint="YYYY-MM-DD; TabbyAPI has no version numbers"
        ) from None


def _paste(path: str, value: Any) -> str | None:
    section, _, name = path.partition(".")
    return _block(section, {name: value})


def _block(section: str, values: Any) -> str | None:
    """The section with these values, as text to paste; None for what no line of YAML holds, which is then moved by hand."""
    if not isinstance(values, dict):
        return None
    try:
        lines = [f"  {name}: {HIDDEN if is_secret(str(name)) else flow(value)}" for name, value in values.items()]
    except ConfigError:
        return None
    return "\n".join([f"{section}:", *lines])


def _replaced(gone: Gone, value: Any) -> str | None:
    if gone.key is None:
        return None
    better = nearest(KEYS[gone.key], value)
    return None if better is None else _paste(gone.key, not better if gone.reverse else better)


def _near(section: str, name: str, value: Any) -> str | None:
    """A misspelt name as its section has it, or else as any has."""
    if not section:
        close = difflib.get_close_matches(name, SECTIONS, n=1, cutoff=0.75)
        return _block(close[0], value) if close else None
    for owner in (section, *(other for other in SECTIONS if other != section)):
        if close := difflib.get_close_matches(name, SECTIONS[owner], n=1, cutoff=0.75):
            return _paste(f"{owner}.{close[0]}", value)
    return None


def _draft_block(value: Any) -> str | None:
    """speculative_decoding: {enabled, draft_model, num_speculative_tokens}, as TabbyAPI has it."""
    said: Mapping[str, Any] = value if isinstance(value, dict) else {}
    if said.get("enabled") is False:
        return _paste("draft_model.draft_mode", "disabled")
    found: dict[str, Any] = {"draft_mode": "model" if said.get("draft_model") else "ngram"}
    folder, _, model = str(said.get("draft_model") or "").rstrip("/").rpartition("/")
    if folder:
        found["draft_model_dir"] = folder
    if model:
        found["draft_model_name"] = model
    if "num_speculative_tokens" in said:
        found["draft_num_tokens"] = said["num_speculative_tokens"]
    return _block("draft_model", found)
