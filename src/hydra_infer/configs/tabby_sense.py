"""What the keys of a TabbyAPI file say together: settings that cancel each other, do nothing here, or do harm.

Read in TabbyAPI e632af4, backends/exllamav3/model.py; each rule says what the code does with the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .finding import Finding
from .tabby_keys import KEYS, OWNER, RESERVE_EVERYWHERE, Key

__all__ = ["Said", "sense"]

_HOME = ("127.0.0.1", "localhost", "::1")
_STEPS = ("draft_num_tokens", "dynamic_draft")
# What each way of drafting reads of the section, beside draft_mode.
_DRAFTING: Mapping[str, tuple[str, ...]] = {
    "model": ("draft_model_dir", "draft_model_name", "draft_cache_mode", "draft_gpu_split", *_STEPS),
    "mtp": ("draft_cache_mode", "draft_gpu_split", *_STEPS),
    "ngram": ("ngram_match_min", *_STEPS),
    "disabled": (),
}


@dataclass(frozen=True, slots=True)
class Said:
    """The file's values, as TabbyAPI takes them, and their lines, by dotted key; what is not said has its default of `keys`."""

    values: Mapping[str, Any]
    lines: Mapping[str, int]
    keys: Mapping[str, Key]
    per_model: bool
    version: str | None

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def __getitem__(self, key: str) -> Any:
        return self.values.get(key, self._default(key))

    def changed(self, key: str) -> bool:
        """Said, and something else than the default: a sample file's own lines are no mistakes."""
        default = self._default(key)
        return key in self.values and self.values[key] != (list(default) if isinstance(default, tuple) else default)

    def _default(self, key: str) -> Any:
        return self.keys.get(key, KEYS[key]).default  # before a key came, things were as its first default has them

    def inert(self, key: str, why: str, instead: str | None = None) -> Finding:
        return Finding(self.lines[key], key, "inert", why, instead)

    def wrong(self, key: str, why: str, instead: str | None = None, *, stops: bool = False) -> Finding:
        return Finding(self.lines[key], key, "wrong", why, instead, stops)

    def dangerous(self, key: str, why: str, instead: str, *, stops: bool = False) -> Finding:
        return Finding(self.lines[key], key, "dangerous", why, instead, stops)


def sense(said: Said) -> Iterator[Finding]:
    """Every rule's findings."""
    for rule in _RULES:
        yield from rule(said)


def _nothing_to_load(said: Said) -> Iterator[Finding]:
    quiet = said.per_model or "model.model_name" in said or said["model.inline_model_loading"]
    if said.changed("model.model_dir") and not quiet:
        yield said.inert(
            "model.model_dir", "without model_name nothing is loaded at start", 'model:\n  model_name: "a folder in model_dir"'
        )


def _without_effect(said: Said) -> Iterator[Finding]:
    for path in said.values:
        why = said.keys[path].inert
        if why is not None and said.changed(path):
            yield said.inert(path, why)


def _splits(said: Said) -> Iterator[Finding]:
    """gpu_split beats tensor_parallel's own split, which beats gpu_split_auto; only the last one reads autosplit_reserve."""
    manual, tensor = bool(said["model.gpu_split"]), said["model.tensor_parallel"]
    by_hand, by_rank = "gpu_split is given and decides", "tensor_parallel splits by itself"
    if "model.gpu_split_auto" in said:
        if said["model.gpu_split_auto"] and (manual or tensor):
            yield said.inert("model.gpu_split_auto", by_hand if manual else by_rank)
        if not (said["model.gpu_split_auto"] or manual or tensor or said.per_model):
            yield said.inert("model.gpu_split_auto", "without gpu_split the loader splits by itself all the same")
    reserved = said.changed("model.autosplit_reserve")
    if reserved and manual:
        yield said.inert("model.autosplit_reserve", f"{by_hand}: what it leaves free is what you left out of it")
    elif reserved and tensor and (said.version is None or said.version < RESERVE_EVERYWHERE):
        why = f"{by_rank}, and TabbyAPI before {RESERVE_EVERYWHERE} then reserves 96 MB only; from then on it counts"
        yield said.inert("model.autosplit_reserve", why)


def _units(said: Said) -> Iterator[Finding]:
    reserve, split = said["model.autosplit_reserve"], said["model.gpu_split"]
    # A card has 4 to 200 GB; nobody reserves less than 32 MB or splits by the terabyte.
    if any(0 < size < 32 for size in reserve):
        better = [round(size * 1024) if 0 < size < 32 else size for size in reserve]
        yield said.wrong("model.autosplit_reserve", "these are MB, and look like GB", f"model:\n  autosplit_reserve: {better}")
    if any(size >= 1024 for size in split):
        better = [round(size / 1024, 2) if size >= 1024 else size for size in split]
        yield said.wrong("model.gpu_split", "these are GB, and look like MB", f"model:\n  gpu_split: {better}")


def _room(said: Said) -> Iterator[Finding]:
    """Prompts are refused from cache_size - chunk_size + 2 tokens on, as a chunk of output is set aside."""
    longest, cache = said["model.max_seq_len"], said["model.cache_size"]
    if not longest or longest < 0 or not cache:
        return
    chunk = -(-said["model.chunk_size"] // 256) * 256 if said["model.output_chunking"] else 0
    if cache < longest:
        why = f"max_seq_len {longest} is cut down to it"
    elif cache < longest + chunk - 1:
        why = f"prompts over {cache - chunk + 1} tokens are refused, though max_seq_len is {longest}: a chunk is set aside"
    else:
        return
    # One token less would do; whole chunks read better and pages are 256.
    enough = -(-(longest + chunk) // 256) * 256
    yield said.wrong("model.cache_size", why, f"model:\n  cache_size: {enough}")


def _drafting(said: Said) -> Iterator[Finding]:
    if said.per_model and "draft_model.draft_mode" not in said:
        return  # config.yml decides
    mode = said["draft_model.draft_mode"]
    off = mode == "model" and "draft_model.draft_model_name" not in said and not said.per_model
    why = "without draft_model_name there is no drafting" if off else f"draft_mode is {mode}"
    reads = () if off else _DRAFTING[mode]
    for path in said.values:
        section, _, name = path.partition(".")
        if (
            section == "draft_model"
            and name not in ("draft_mode", *reads)
            and said.keys[path].inert is None
            and said.changed(path)
        ):
            yield said.inert(path, why)
    if mode == "ngram" and said["draft_model.ngram_match_min"] < 1:
        better = "draft_model:\n  ngram_match_min: 2"
        yield said.wrong("draft_model.ngram_match_min", "must be 1 or more: the model does not load", better, stops=True)


def _draft_cards(said: Said) -> Iterator[Finding]:
    drafts = said["draft_model.draft_mode"] == "mtp" or "draft_model.draft_model_name" in said
    if said["draft_model.draft_gpu_split"] and drafts and not said["model.gpu_split"] and not said.per_model:
        why = 'without model.gpu_split the load fails: "Cannot specify both memory usage and memory reserve."'
        yield said.dangerous("draft_model.draft_gpu_split", why, "draft_model:\n  draft_gpu_split: []", stops=True)


def _experts(said: Said) -> Iterator[Finding]:
    """Two ways of having a mixture's experts on the CPU, whole layers or a share of each, and neither beside the other."""
    share = "model.cpu_moe_split_experts"
    if not said[share]:
        return
    if said["model.cpu_moe_offload_layers"]:
        why = "cpu_moe_offload_layers is given too, and the model does not load with both"
        yield said.wrong(share, why, "model:\n  cpu_moe_split_experts: 0", stops=True)
    elif said["model.tensor_parallel"]:
        yield said.wrong(share, "not with tensor_parallel", "model:\n  cpu_moe_split_experts: 0")


def _defaults(said: Said) -> Iterator[Finding]:
    for name in said["model.use_as_default"]:
        if OWNER.get(name) not in ("model", "draft_model"):
            yield said.wrong("model.use_as_default", f"{name} is no key of model or draft_model")


def _open_door(said: Said) -> Iterator[Finding]:
    host = said["network.host"]
    if said["network.disable_auth"] and host not in _HOME:
        why = f"whoever reaches {host} may load and unload models, and download into model_dir"
        yield said.dangerous("network.disable_auth", why, "network:\n  disable_auth: false")


_RULES: tuple[Callable[[Said], Iterator[Finding]], ...] = (
    _nothing_to_load,
    _without_effect,
    _splits,
    _units,
    _room,
    _drafting,
    _draft_cards,
    _experts,
    _defaults,
    _open_door,
)
