"""The plan of what a TabbyAPI will load at its start, from its config.yml and the model's own tabby_config.yml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..configs.disk import read
from ..configs.document import parse
from ..configs.tabby_keys import KEYS
from ..configs.tabby_values import taken
from ..errors import ConfigError
from ..hardware.gpu import Gpu
from ..models.folder import read_model
from ..planner.report import Plan
from ..planning import plan

__all__ = ["TabbyConfig", "visible"]

# autosplit_reserve is in MB, our reserve in GiB.
_MB_PER_GIB = 1024


@dataclass(frozen=True, slots=True)
class TabbyConfig:
    """A config.yml, read as TabbyAPI reads it: what is not said has TabbyAPI's default."""

    path: Path
    said: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> TabbyConfig:
        """Raises ConfigError for what cannot be read or is not YAML."""
        path = path.absolute()
        said, folder = _sections(path), cls.folder_in(path)
        own = {} if folder is None or not (folder / "tabby_config.yml").is_file() else _sections(folder / "tabby_config.yml")
        over = {name: {**said.get(name, {}), **own[name]} for name in own if name in ("model", "draft_model")}
        return cls(path, {**said, **over})

    @classmethod
    def folder_in(cls, path: Path) -> Path | None:
        """The folder of the model that a config.yml names, whose own tabby_config.yml wins over it; None where it names none."""
        return cls(path.absolute(), _sections(path)).model_folder

    def __getitem__(self, key: str) -> Any:
        """The value of a dotted key, as TabbyAPI takes it. Raises ConfigError for one that it does not take."""
        section, _, name = key.partition(".")
        value = self.said.get(section, {}).get(name)
        if value is None:
            return KEYS[key].default
        try:
            return taken(KEYS[key], value)
        except ValueError as error:
            raise ConfigError(f"{self.path}: {key} {error}") from error

    @property
    def model_folder(self) -> Path | None:
        """The model that is loaded at the start; None where the file names none. Relative paths count from its own folder."""
        name = self["model.model_name"]
        return self.path.parent / str(self["model.model_dir"]) / str(name) if name else None

    def plan(self, cards: Sequence[Gpu]) -> Plan:
        """What that takes on these cards, as plan() says. Raises what plan() raises."""
        folder = self.model_folder
        if folder is None:
            raise ConfigError(f"{self.path} names no model to load")
        tensor, split = bool(self["model.tensor_parallel"]), list(self["model.gpu_split"] or ())
        reserve = [size / _MB_PER_GIB for size in self["model.autosplit_reserve"] or ()]
        mode = str(self["model.cache_mode"]).lower()
        return plan(
            folder,
            gpus=list(cards),
            context=self._context(folder),
            cache=mode,
            chunk=int(self["model.chunk_size"]),
            slots=int(self["model.max_batch_size"] or 1),
            split="tensor" if tensor else "layers" if len(cards) > 1 else "auto",
            gpu_split=split or None,
            # Left out where TabbyAPI does not read it; one for more cards than there are is cut, as it does.
            reserve=None if tensor or split or len(cards) < 2 else reserve[: len(cards)] or None,
            draft=self._draft(),
            draft_tokens=self["draft_model.draft_num_tokens"] if self._draft() else None,
            engine="tabby",
        )

    def _context(self, folder: Path) -> int:
        """The tokens that its cache holds less the chunk that plan() adds: cache_size, else max_seq_len, else the model's own."""
        longest = int(self["model.max_seq_len"] or 0)
        if longest <= 0:
            longest = read_model(folder).geometry.trained_context or 4096
        cache = int(self["model.cache_size"] or 0)
        return max(256, cache - int(self["model.chunk_size"])) if cache else longest

    def _draft(self) -> str | Path | None:
        mode, name = self["draft_model.draft_mode"], self["draft_model.draft_model_name"]
        if mode in ("mtp", "ngram"):
            return str(mode)
        if mode == "disabled" or not name:
            return None
        return self.path.parent / str(self["draft_model.draft_model_dir"]) / str(name)


def visible(cards: Sequence[Gpu], environment: Mapping[str, str]) -> list[Gpu]:
    """The cards that CUDA_VISIBLE_DEVICES leaves, in its order; its numbers count in PCI order (CUDA_DEVICE_ORDER=PCI_BUS_ID)."""
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return list(cards)
    found = []
    for word in filter(None, (part.strip() for part in wanted.split(","))):
        card = next(
            (card for number, card in enumerate(cards) if str(number) == word or (card.uuid or "-").startswith(word)), None
        )
        if card is None:
            break  # CUDA too sees none from the first unknown one on
        found.append(card)
    return found


def _sections(path: Path) -> dict[str, dict[str, Any]]:
    root = parse(read(path), str(path))
    return {name: dict(section) for name, section in root.items() if isinstance(section, dict)} if isinstance(root, dict) else {}
