"""Model folders: complete, of a kind that the server loads, with a chat template, mounted, and named for what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import HydraError
from ...models.folder import read_model
from ...models.spec import ModelSpec
from ..storage import Mount, absent_mount
from .report import Finding

__all__ = ["FolderFacts", "check_folder", "folder_facts", "stored_rate"]

_NAME = re.compile(r"(?P<model>.+)-(?P<size>\d+(\.\d+)?[BMbm])-EXL3-(?P<bpw>\d+(\.\d+)?)bpw")
# A mixture of rates hits the number in the name to about a tenth.
_TOLERANCE = 0.15


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """`spec` is None where `trouble` says why; `absent` is a mount that should be there and is not."""

    path: Path
    spec: ModelSpec | None
    trouble: str = ""
    template: bool = False
    absent: Mount | None = None


def folder_facts(path: Path, root: Path = Path("/")) -> FolderFacts:
    """Reads headers and small files."""
    absent = absent_mount(path, root)
    try:
        spec = read_model(path)
    except HydraError as error:
        return FolderFacts(path, None, str(error), absent=absent)
    return FolderFacts(path, spec, template=spec.format == "gguf" or _has_template(path), absent=absent)


def _has_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return False  # not there, or nothing that could hold one


def check_folder(facts: FolderFacts, *, where: str, tabby: bool) -> Iterator[Finding]:
    """`where` is the server or file that names the folder; `tabby`: TabbyAPI is to load it."""
    if facts.absent is not None:
        yield Finding(
            "error",
            where,
            f"{facts.absent.target} is not mounted, and {facts.path} lies there",
            "the model cannot be read; a download would fill the disk under the mount",
            f"mount {facts.absent.target}; RequiresMountsFor= in the unit makes it wait for that",
        )
        return
    if facts.spec is None:
        mend = "fetch the missing files again, or correct the path"
        yield Finding("error", where, f"{facts.path.name}: {facts.trouble}", "the model cannot be loaded", mend)
        return
    if tabby and facts.spec.format not in ("exl3", "hf"):
        yield Finding(
            "error",
            where,
            f"{facts.path.name} is {facts.spec.format}, which TabbyAPI does not load",
            "TabbyAPI has had ExLlamaV3 alone since July 2026",
            "make EXL3 of the original weights (not of this folder): hydra-infer migrate",
        )
    if not facts.template:
        yield Finding(
            "warning",
            where,
            f"{facts.path.name} has no chat template",
            "chats are refused; plain completions work",
            "put the original model's chat_template.jinja or tokenizer_config.json beside its config.json",
        )
    yield from _named(facts.path.name, facts.spec, where)


def _named(name: str, spec: ModelSpec, where: str) -> Iterator[Finding]:
    rate = stored_rate(spec)
    found = _NAME.fullmatch(name)
    if spec.format == "exl3" and rate is not None and found and abs(float(found["bpw"]) - rate) > _TOLERANCE:
        yield Finding(
            "warning",
            where,
            f"{name} says {found['bpw']} bits per weight, and its files have {rate:.2f}",
            "whoever plans by the name plans wrong",
            f"rename it: {found['model']}-{found['size']}-EXL3-{rate:.1f}bpw (and where it is named)",
        )


def stored_rate(spec: ModelSpec) -> float | None:
    """Bits per weight of an EXL3 model's layers, its head left out as in the names: a trellis holds 16 x 16 weights a tile.

    Source: exllamav3 1.6.5, modules/quant/exl3.py (trellis is k/16, n/16, 16 K in 16-bit words).
    """
    found = [
        tensor
        for name, tensor in spec.tensors.items()
        if name.endswith(".trellis") and len(tensor.shape) == 3 and "lm_head" not in name
    ]
    weights = sum(tensor.shape[0] * tensor.shape[1] * 256 for tensor in found)
    return sum(tensor.nbytes for tensor in found) * 8 / weights if weights else None
