"""Writes docs/accuracy_measured.md from the data: PYTHONPATH=src:tests python -m measured.write"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from measured.judge import Judged, decode, edge, mean, slope, speculation, used, vram, worst

TARGET = Path(__file__).parents[2] / "docs" / "accuracy_measured.md"

INTRO = """# The planner against measurements

Nothing here was measured by us: these are the figures other people published, as data in `tests/data/measured` with their
sources. A row is **judged** (the planner is compared with it), **fitted** (a constant was chosen with it, so its error says
nothing), or **not used**, with the reason. `PYTHONPATH=src:tests python -m measured.write` writes this page;
`tests/measured` holds the planner to it.
"""

OLD = """No published row of ExLlamaV3 1.x gives enough (number of slots, drafted tokens, type of the draft's cache), so none is
judged. The two of 1.5.0 with a file size (E10 and E11: Qwen3.8-27B with MTP and its vision tower, 262,144 tokens of q4, peaks
of 23,436 and 26,264 MiB) were worked out by hand. With everything unsaid taken as small (4 slots, a q4 draft cache, likely
overhead) the planner says 19,900 and 21,300 MiB; as large (16 slots, fp16, high overhead) 23,200 and 24,600. That is too
little for both, by 1 to 15 % and by 6 to 19 %; what the rest was is not known.

Of version 0.0.3 only slopes count, and the context at which it ran out of memory, compared with where the likely figure
reaches the 23,592 MiB that were free on that RTX 4090 (exllamav3 issue 50). Counted as 1.6.5 would have it, with the fp16 copy
of one layer's whole cache that the old version kept where the cache was quantised. The likely overhead (0.33 GiB) was chosen with
gemma's edge in sight; Nemotron's judges it.
"""

Cells = Callable[[Judged], Sequence[str]]


def page() -> str:
    return "\n".join(
        [
            INTRO,
            *_speed(),
            *_drafts(),
            *_memory(),
            *_old(),
            *_unused(),
        ]
    )


def _speed() -> Iterator[str]:
    judged = decode()
    yield "## Decode speed\n"
    yield (
        "Tokens per second of one stream. The constants (`planner/speed.py`) are a fixed time per layer, a share of the "
        "bandwidth per GPU generation and engine, a time per all-reduce, and a share for reading a quantised cache. Covered: "
        "exllamav2 with EXL2, and llama.cpp with 4 bits and more, on cards of compute capability 8.6, 8.9 and 12.0. "
        "**Not judged**: exllamav3 (no published row of 1.x says all that is needed; its constants are assumed, its range is "
        "wide, and the plan says so), files below 4 bits with llama.cpp, other generations, system RAM.\n"
    )
    yield _summary(judged)
    columns = ("engine", "cards", "split", "model", "file", "tokens in cache")
    yield from _table(judged, columns, lambda each: _pick(each, "engine gpus split model file filled"), "{:.1f}")


def _drafts() -> Iterator[str]:
    judged = speculation()
    yield "## Drafting\n"
    yield (
        "How many times as fast as without a draft, at the acceptance the row itself gives: this judges the cost of drafting "
        "and verifying (`planner/draft.py`), not a forecast of acceptance. All rows are llama.cpp with the MTP head of "
        "Qwen3.8-27B. Where a row gives a range of acceptance, its top was taken for the code prompt and its bottom for the "
        "prose prompt. With ExLlama, with draft models and "
        "with n-grams the same law is used with the same costs of verifying: that is assumed, and `plan.draft.judged` says so.\n"
    )
    yield _summary(judged)
    columns = ("cards", "split", "file", "tokens", "text", "acceptance")
    yield from _table(judged, columns, lambda each: _pick(each, "gpus split file draft_tokens text acceptance"), "{:.2f}")


def _memory() -> Iterator[str]:
    judged = [each for each in vram() if each.row["engine"] == "llama.cpp"]
    yield "## Memory with llama.cpp\n"
    yield (
        "MiB in use, with the likely overhead of 0.3 GiB per card. The files are not here: their size is published, the shape "
        "is Qwen3.5-27B's, and how many bits the embedding and the MTP layer have is assumed (`files.json`). The MTP "
        "layer is only loaded when it drafts; the 100 MiB of its graph were read off the fitted rows and off three of unknown "
        "file size. That a mask and an fp16 copy of one layer's quantised cache are held was inferred from such rows, too: from "
        "the difference between L02 and L01.\n"
    )
    yield _summary(judged)
    columns = ("cards", "file", "context", "cache", "drafted")
    yield from _table(judged, columns, lambda each: _pick(each, "gpus file context cache draft_tokens"), "{:.0f}")


def _old() -> Iterator[str]:
    yield "## Memory with ExLlamaV3\n"
    yield OLD
    yield "| model | MiB per 1,024 tokens, measured | predicted | error | ran out between | predicted |"
    yield "|---|---:|---:|---:|---|---:|"
    for model, between in (("gemma-3-27b", "30K and 31K"), ("Nemotron-Super-49B", "21K and 22K")):
        found = slope(model)
        figures = f"{found.measured:.1f} | {found.predicted:.1f} | {found.error:+.1%}"
        yield f"| {model} | {figures} | {between} | {edge(model):.1f}K |"
    yield "\nWhat grew with the context of Nemotron beside its cache there is not known.\n"


def _unused() -> Iterator[str]:
    yield "## Rows that are not used\n"
    yield "| row | engine | cards | model | file | measured | why not | source |"
    yield "|---|---|---|---|---|---:|---|---|"
    for judged, unit in ((decode(), "tok/s"), (speculation(), "times"), (vram(), "MiB")):
        for each in used(judged, "out"):
            row = each.row
            shown = "" if each.measured is None else f"{each.measured:g} {unit}"
            cells = (row["id"], row.get("engine", "llama.cpp"), row["gpus"], row.get("model", "Qwen3.8-27B"), row["file"], shown)
            yield "| " + " | ".join((*cells, row["reason"], row["source"])) + " |"
    yield ""


def _pick(each: Judged, names: str) -> list[str]:
    return [each.row[name] for name in names.split()]


def _summary(judged: list[Judged]) -> str:
    count = used(judged)
    return f"**{len(count)} rows judged: mean error {mean(count):.1%}, worst {worst(count):.1%}.**\n"


def _table(judged: list[Judged], columns: Sequence[str], cells: Cells, form: str) -> Iterator[str]:
    yield "| row | " + " | ".join(columns) + " | measured | predicted | error | used | source |"
    yield "|---" * (len(columns) + 1) + "|---:|---:|---:|---|---|"
    for each in judged:
        if each.predicted is None or each.measured is None:
            continue
        figures = (form.format(each.measured), form.format(each.predicted), f"{each.error:+.1%}")
        used_for = {"fit": "fitted", "judge": "judged"}[each.role]
        yield "| " + " | ".join((each.row["id"], *cells(each), *figures, used_for, each.row["source"])) + " |"
    yield ""


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
