"""Translate: a config.yml of TabbyAPI's ExLlamaV2 days as today's TabbyAPI reads it, with the reason for every change."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...configs.document import parse
from ...configs.edit import KeyPath, diff, edit
from ...configs.finding import Finding
from ...configs.secrets import HIDDEN
from ...configs.tabby import lint
from ...configs.tabby_keys import RESERVE_EVERYWHERE
from .strike import strike

__all__ = ["Change", "Translation", "translate"]

# The youngest TabbyAPI that the linter knows a change of.
_TODAY = RESERVE_EVERYWHERE

# Told of, and left as they are: who may do what is no matter of the engine, and of a list of names not all are wrong.
_KEPT = frozenset({"network.disable_auth", "model.use_as_default"})
_OLD_FORMAT = re.compile(r"(?i)(exl2|gptq)")


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was changed: the key as it stood, what was done, and why."""

    key: str
    done: str
    why: str

    def __str__(self) -> str:
        return f"{self.key}: {self.done}: {self.why}"


@dataclass(frozen=True, slots=True)
class Translation:
    """`text` is the new file, `changes` what was done and why; `open` is what only its owner can decide."""

    old: str = field(repr=False)
    text: str = field(repr=False)
    changes: tuple[Change, ...]
    open: tuple[str, ...]

    @property
    def diff(self) -> str:
        """Old to new, secrets hidden."""
        return diff(self.old, self.text)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the text is not hidden."""
        changes = [dataclasses.asdict(one) for one in self.changes]
        return {"text": self.text, "diff": self.diff, "changes": changes, "open": list(self.open)}

    def __str__(self) -> str:
        lines = [self.diff.rstrip()] if self.diff else ["nothing to change"]
        lines += [str(one) for one in self.changes] + [f"open: {one}" for one in self.open]
        return "\n".join(lines)


def translate(text: str, *, model: str | None = None, draft: str | None = None, version: str = _TODAY) -> Translation:
    """The text as today's TabbyAPI reads it, by the linter's findings one after the other; comments stay.

    Keys that nobody reads are commented out, never dropped. A key that stands in its right place already wins over one from a
    wrong place. `model` and `draft` are the EXL3 folders' names, to be loaded instead of the EXL2 ones. `version` is the date
    of the TabbyAPI commit that will read it, as lint() takes it; left out, the newest that is known. Raises ConfigError for
    what is not YAML, and for keys that cannot be commented out (see strike()).
    """
    old, changes, met = text, list[Change](), set[tuple[str, str]]()
    named = {"model.model_name": model, "draft_model.draft_model_name": draft}
    for path, name in named.items():
        if name is not None and _value(text, path) != name:
            text = edit(text, {path: name})
            changes.append(Change(path, f"set to {name}", "exllamav2 was removed on 2026-07-14: EXL2 and GPTQ are refused"))
    while (finding := _next(text, version, met)) is not None:
        met.add((finding.key, finding.why))
        text, change = _mended(text, finding, named)
        changes.append(change)
    return Translation(old, text, tuple(changes), tuple(_open(text, version)))


def _next(text: str, version: str, met: set[tuple[str, str]]) -> Finding | None:
    """The first finding that was not met before and that can be mended; one that comes again is its owner's."""
    for one in lint(text, version=version):
        if one.key and (one.key, one.why) not in met and one.key not in _KEPT and not _asks(one):
            return one
    return None


def _asks(finding: Finding) -> bool:
    """Whether what to write instead has to be found out first, or must not be shown."""
    return finding.instead is not None and ("a folder in model_dir" in finding.instead or HIDDEN in finding.instead)


def _mended(text: str, finding: Finding, named: Mapping[str, str | None]) -> tuple[str, Change]:
    instead = dict(_settings(finding.instead))
    if finding.key in instead and len(instead) == 1:
        value = instead[finding.key]
        return edit(text, {finding.key: value}), Change(finding.key, f"set to {value}", finding.why)
    struck = strike(text, finding.key, f"hydra_infer: {' '.join(finding.why.split())}")
    # What is said elsewhere already wins, and an empty list says no more than the key left out.
    wanted: dict[KeyPath, Any] = {
        path: value for path, value in instead.items() if value != [] and _value(struck, path) is None and not named.get(path)
    }
    done = "commented out" + "".join(f", {path} set to {value}" for path, value in wanted.items())
    return (edit(struck, wanted) if wanted else struck), Change(finding.key, done, finding.why)


def _settings(instead: str | None) -> Iterator[tuple[str, Any]]:
    """What a finding says to write, by dotted key."""
    for section, values in (parse(instead, "the finding") if instead else {}).items():
        for name, value in values.items():
            yield f"{section}.{name}", value


def _value(text: str, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    found = parse(text, "the file")
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _open(text: str, version: str) -> Iterator[str]:
    for path in ("model.model_name", "draft_model.draft_model_name"):
        name = _value(text, path)
        if name is not None and _OLD_FORMAT.search(str(name)):
            option = "draft" if path.startswith("draft") else "model"
            yield f"{path}: {name} is refused by today's TabbyAPI: name its EXL3 ({option}=)"
    for finding in lint(text, version=version):
        yield str(finding)
