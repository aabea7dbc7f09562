"""Report: what was found wrong with a fleet, each with why it matters and what mends it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from ...errors import ConfigError

__all__ = ["Finding", "Report", "Severity", "unseen"]

# error: it does not work, or not for long. warning: it works, and worse or less safely than it could. unseen: nobody could look.
Severity = Literal["error", "warning", "unseen"]
_ORDER = ("error", "warning", "unseen")


@dataclass(frozen=True, slots=True)
class Finding:
    """`where` is a server, host or file; `mend` is the command or change that helps."""

    severity: Severity
    where: str
    what: str
    why: str
    mend: str

    def __str__(self) -> str:
        if self.severity == "unseen":
            return f"{self.where}: not looked at: {self.what}" + (f"\n    {self.mend}" if self.mend else "")
        return f"{self.severity}: {self.where}: {self.what}\n    why:  {self.why}\n    mend: {self.mend}"


def unseen(where: str, what: str, mend: str = "") -> Finding:
    """A thing that could not be looked at, and why: silence would read as health."""
    return Finding("unseen", where, what, "", mend)


@dataclass(frozen=True, slots=True)
class Report:
    """The findings, the worst first. Iterate it, print it, or ask whether all is `healthy`."""

    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Self:
        """Each finding once, sorted by severity; within one, in the order in which they came."""
        return cls(tuple(sorted(dict.fromkeys(findings), key=lambda one: _ORDER.index(one.severity))))

    @property
    def healthy(self) -> bool:
        """Nothing that could be looked at is wrong."""
        return all(one.severity == "unseen" for one in self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __str__(self) -> str:
        counts = {severity: sum(one.severity == severity for one in self.findings) for severity in _ORDER}
        names = {"error": "errors", "warning": "warnings", "unseen": "not looked at"}
        said = ", ".join(f"{names[severity]}: {count}" for severity, count in counts.items() if count)
        return "\n".join([*map(str, self.findings), said or "nothing is wrong"])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `from_dict` reads."""
        return {"healthy": self.healthy, "findings": [asdict(one) for one in self.findings]}

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], host: str = "") -> Self:
        """A report from another machine; `host` is put before each place. Raises ConfigError for what is none."""
        prefix = f"{host}: " if host else ""
        try:
            rows = [{name: str(row[name]) for name in Finding.__slots__} for row in data["findings"]]
        except (LookupError, TypeError) as error:
            raise ConfigError(f"that is no report of a doctor: {error!r}") from error
        if unknown := {row["severity"] for row in rows} - set(_ORDER):
            raise ConfigError(f"that is no report of a doctor: severity {unknown.pop()!r}")
        return cls.of(Finding(**{**row, "where": prefix + row["where"]}) for row in rows)  # type: ignore[arg-type]
