"""Report: what the ledger says, for a person (markdown) and for a program (plain data)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra_infer.units import Size

from . import judge
from .ledger import Entry
from .steps import STAGES, Step, blocked_by

__all__ = ["last_line", "markdown", "outcome", "plain", "state_of", "unable"]

# Facts that a table of their own, or the JSON, tells better.
UNTOLD = {"pace", "rounds"}


def state_of(step: Step, steps: Sequence[Step], entries: Mapping[str, Entry]) -> str:
    """What became of a step, in words: for one that did not run, which of its needs is to blame."""
    entry = entries.get(step.name)
    if entry is not None:
        missed = len(entry.missed)
        return f"{entry.status}, {missed} outside the goal" if missed else entry.status
    waits = blocked_by(step, unable(steps, entries))
    return "not run" if waits is None else f"not run: needs {waits}"


def unable(steps: Sequence[Step], entries: Mapping[str, Entry]) -> set[str]:
    """The steps that failed, and those that cannot run because of them."""
    found = {name for name, entry in entries.items() if entry.status == "failed"}
    for step in steps:
        if step.name not in entries and blocked_by(step, found):
            found.add(step.name)
    return found


def outcome(steps: Sequence[Step], entries: Mapping[str, Entry]) -> int:
    """The exit status: 0 all done and within the goals, 1 something failed or missed its goal, 3 steps are still to run."""
    if any(entry.status == "failed" or entry.missed for entry in entries.values()):
        return 1
    return 0 if all(step.made or (step.name in entries and entries[step.name].status == "done") for step in steps) else 3


def plain(steps: Sequence[Step], entries: Mapping[str, Entry]) -> dict[str, Any]:
    """Everything, and the planner's speed constants as these measurements would have them."""
    told = {}
    for step in steps:
        entry = entries.get(step.name)
        row: dict[str, Any] = {"stage": step.stage, "state": state_of(step, steps, entries)}
        if entry is not None:
            row |= {"seconds": entry.seconds, "found": dict(entry.found), "error": entry.error}
        told[step.name] = row
    return {"outcome": outcome(steps, entries), "steps": told, "pace": _paces(entries)}


def markdown(steps: Sequence[Step], entries: Mapping[str, Entry]) -> str:
    """The report to read: the machine, one line for each step, then every stage with what was measured."""
    lines = ["# GPU check", "", _headline(steps, entries), ""]
    lines += _table(
        ("step", "outcome", "seconds"),
        [(step.name, state_of(step, steps, entries), _seconds(entries.get(step.name))) for step in steps],
    )
    for stage, title in STAGES.items():
        shown = [(step, entries[step.name]) for step in steps if step.stage == stage and step.name in entries]
        if shown:
            lines += ["", f"## {title}"]
        for step, entry in shown:
            lines += ["", f"### {step.name}", "", *_entry(entry)]
    lines += _pace_lines(entries)
    return "\n".join(lines) + "\n"


def _headline(steps: Sequence[Step], entries: Mapping[str, Entry]) -> str:
    failed = [f"{name}: {last_line(entry.error)}" for name, entry in entries.items() if entry.status == "failed"]
    missed = [name for name, entry in entries.items() if entry.missed]
    waiting = sum(1 for step in steps if not step.made and step.name not in entries)
    said = [f"{len(failed)} failed ({'; '.join(failed)})"] if failed else []
    said += [f"{len(missed)} outside a goal ({', '.join(missed)})"] if missed else []
    said += [f"{waiting} not run"] if waiting else []
    return "; ".join(said) or "Everything ran, and every goal was met."


def last_line(text: str) -> str:
    """What an error comes to: its only line, or the last one of a traceback."""
    return text.strip().splitlines()[-1][:200] if text.strip() else ""


def _entry(entry: Entry) -> Iterator[str]:
    if entry.error:
        yield from ("```", *entry.error.strip().splitlines(), "```")
    for remark in entry.found.get("remarks", ()):
        yield f"- note: {remark}"
    rows = entry.found.get("judged", ())
    if rows:
        yield from _table(("", "predicted", "found", "off", "goal"), [_row(row) for row in rows])
        yield ""
    for name, value in entry.found.get("facts", {}).items():
        if name not in UNTOLD:
            yield f"- {name.removesuffix('_bytes').replace('_', ' ')}: {_value(name, value)}"


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    met = "met" if row["within"] else "MISSED"
    if "predicted_bytes" in row:
        predicted = str(Size(row["predicted_bytes"]))
        if "low_bytes" in row:
            predicted += f" ({Size(row['low_bytes'])} to {Size(row['high_bytes'])})"
        share = f" ({row['off_bytes'] / row['actual_bytes']:+.1%})" if row["actual_bytes"] else ""
        return row["term"], predicted, str(Size(row["actual_bytes"])), f"{Size(row['off_bytes'])}{share}", met
    if "ratio" in row:
        return row["term"], f"{row['raw_tps']} tokens/s raw", f"{row['engine_tps']} tokens/s", f"{row['ratio']:.1%}", met
    if "used_bytes" in row:
        used = ", ".join(str(Size(size)) for size in row["used_bytes"])
        return row["term"], "no more than after the first", used, str(Size(row["off_bytes"])), met
    return row["term"], str(row["expected"]), str(row["found"]).replace("|", "\\|"), "", met


def _paces(entries: Mapping[str, Entry]) -> dict[str, dict[str, float]]:
    """The two constants of planner/speed.py for each format that three or more models were measured of."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries.values():
        if pace := entry.found.get("facts", {}).get("pace"):
            rows.setdefault(pace["format"], []).append(pace)
    return {form: judge.pace(found) for form, found in rows.items() if len(found) >= 3}


def _pace_lines(entries: Mapping[str, Entry]) -> Iterator[str]:
    for form, pace in _paces(entries).items():
        yield from ("", f"## Speed constants, {form}", "")
        said = f"{pace['layer_s'] * 1e6:.1f} µs a layer and {pace['efficiency']:.3f} of the bandwidth"
        yield f"{said}; off by {pace['worst_off']:.1%} at most."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _seconds(entry: Entry | None) -> str:
    return "" if entry is None else f"{entry.seconds:.0f}"


def _value(name: str, value: Any) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        return str(Size(value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
