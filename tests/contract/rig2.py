"""ExLlamaV2 on a CPU: its own loaders, caches, tokenizer, generator, sampler and filters, with a Mind for a model."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import engine2  # noqa: F401  (its import puts stand-ins where exllamav2 looks for its extension)
import exllamav2
import exllamav2.attn
import exllamav2.generator.dynamic as generator_module
import torch
from exllamav2 import ExLlamaV2
from exllamav2.attn import ExLlamaV2Attention
from exllamav2.cache import ExLlamaV2Cache_TP, ExLlamaV2CacheBase
from exllamav2.embedding import ExLlamaV2Embedding
from exllamav2.generator import ExLlamaV2DynamicGenerator, ExLlamaV2DynamicJob, ExLlamaV2Sampler
from exllamav2.linear import ExLlamaV2Linear
from exllamav2.mlp import ExLlamaV2MLP
from exllamav2.rmsnorm import ExLlamaV2RMSNorm
from exllamav2.tensor_p import TPContext
from rig import CONFIG, EOS, OTHER_EOS, VOCAB, Faults, Mind, alive, count_match, on_cpu, partial_match, row, vocabulary
from synthetic import exl2

import hydra_infer
from hydra_infer.engines.exllama import load as load_module
from hydra_infer.engines.exllama.preflight import Surroundings
from hydra_infer.hardware.gpu import Gpu
from hydra_infer.units import GIB, Size

__all__ = ["CARDS", "Rig"]

PAGE = 256
CARDS = [Gpu("RTX 5090", free=31, index=0, uuid="GPU-a"), Gpu("RTX 4090", free=23, index=1, uuid="GPU-b")]
MODULES = (ExLlamaV2Attention, ExLlamaV2Embedding, ExLlamaV2Linear, ExLlamaV2MLP, ExLlamaV2RMSNorm)

# What its Settings call the request's fields.
PENALTIES = {name: f"token_{name}" for name in ("repetition_penalty", "frequency_penalty", "presence_penalty")}


class Rig:
    """One machine with two cards, a model's folder and a drafter's. `flash` is whether flash-attn seems to be installed."""

    name = "exllamav2"

    def __init__(self, folder: Path, *, flash: bool = True) -> None:
        config = CONFIG | {"model_type": "llama", "pad_token_id": 0}
        self.folder = vocabulary(exl2(folder / "model", config, 4.0))
        self.draft_folder = vocabulary(exl2(folder / "draft", config | {"num_hidden_layers": 1}, 4.0))
        self.mind, self.drafter = Mind(), Mind(slip=3)
        self.faults, self.flash = Faults(), flash
        self.threads: set[int] = set()  # on which iterate() ran
        self.workers: list[int] = []  # cards of a tensor-parallel model, while it is loaded
        self.placed: list[tuple[str, str, int | None]] = []  # (folder, kind of module, card), in the order of loading
        self.room: dict[int, int] = {}  # how many modules a card takes; no entry: all
        self.loads: list[tuple[str, dict[str, Any]]] = []  # each loader that was called, and the numbers it was given
        self.generators: list[dict[str, Any]] = []  # the numbers that each was made with

    # ---- what scenarios ask

    def engine(self, **settings: Any) -> hydra_infer.Engine:
        """An Engine by the public door."""
        settings = {"context": 2048, "progress": False, **settings}
        if settings.get("draft") == "model":
            settings["draft"] = self.draft_folder
        return hydra_infer.load(self.folder, **settings)

    def raw(self, prompts: Sequence[str], *, tokens: int = 32, seed: int | None = None, **sampling: Any) -> list[list[int]]:
        """What the engine's own generator says to each prompt, one after the other, with its own sampler."""
        config = exllamav2.ExLlamaV2Config(str(self.folder))
        config.max_seq_len = 2048
        model = ExLlamaV2(config)
        cache = exllamav2.ExLlamaV2Cache(model, lazy=True)
        model.load_autosplit(cache)
        tokenizer = exllamav2.ExLlamaV2Tokenizer(config)
        generator = ExLlamaV2DynamicGenerator(model, cache, tokenizer, max_batch_size=1, paged=self.flash)
        said = []
        for prompt in prompts:
            ids = tokenizer.encode(prompt, add_bos=True, encode_special_tokens=True)
            job = ExLlamaV2DynamicJob(ids, tokens, gen_settings=_settings(sampling), seed=seed, stop_conditions=[EOS, OTHER_EOS])
            generator.enqueue(job)
            while generator.num_remaining_jobs():
                generator.iterate()
            said.append(job.sequences[0].sequence_ids.torch()[0, ids.shape[-1] :].tolist())
        model.unload()
        for pool in (generator.sampling_pool, generator.filter_pool):
            pool.shutdown()
        return said

    def alive(self) -> dict[str, int]:
        kinds = (ExLlamaV2, exllamav2.ExLlamaV2Config, exllamav2.ExLlamaV2Tokenizer, ExLlamaV2CacheBase)
        return {**alive((*kinds, ExLlamaV2DynamicGenerator, ExLlamaV2DynamicJob)), "workers": len(self.workers)}

    def used(self, engine: hydra_infer.Engine) -> int:
        """Tokens of the cache that jobs hold; asked on the engine's own thread."""
        thread = engine._core._driver.thread
        return int(thread.call(lambda: thread.stepper.runner().facts()["used_tokens"]).result())

    # ---- what stands in for the compiled part and the model

    @contextmanager
    def installed(self, patch: Any) -> Iterator[Rig]:
        patch.setattr(load_module, "look", lambda _engine: self._surroundings())
        patch.setattr(exllamav2.attn, "has_flash_attn", self.flash)
        patch.setattr(exllamav2.attn, "has_flash_attn_with_paged", self.flash)
        with on_cpu(patch):
            patch.setattr(torch, "zeros", _here(torch.zeros))
            for module in (exllamav2.model, exllamav2.module, exllamav2.device):
                patch.setattr(module, "_torch_device", lambda _card: "cpu")
            for name, function in _extension().items():
                patch.setattr(sys.modules["exllamav2_ext"], name, function, raising=False)
            for kind in MODULES:
                patch.setattr(kind, "load", self._place_function())
                patch.setattr(kind, "forward", lambda module, state, **_: _passed(module, state))
                patch.setattr(kind, "tp_split", lambda *_: None, raising=False)
            patch.setattr(ExLlamaV2, "forward_chunk", self._forward_function())
            patch.setattr(TPContext, "finalize", lambda context: self.workers.extend(context.all_devices()))
            patch.setattr(TPContext, "unload", lambda _: self.workers.clear())
            self._watch(patch)
            yield self

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            cards=CARDS, installed=True, cuda="13.0", extension=True, guarded=True, worker=False, shm=Size(8 * GIB), cores=16
        )

    def _watch(self, patch: Any) -> None:
        iterate, begin = ExLlamaV2DynamicGenerator.iterate, ExLlamaV2DynamicGenerator.__init__

        def iterated(generator: Any) -> Any:
            self.threads.add(threading.get_ident())
            return iterate(generator)

        def begun(generator: Any, *arguments: Any, **named: Any) -> None:
            self.generators.append({name: value for name, value in named.items() if isinstance(value, int)})
            begin(generator, *arguments, **named)

        begun.__wrapped__ = begin  # type: ignore[attr-defined]  # so that its signature is still the real one
        for name in ("load", "load_autosplit", "load_tp"):
            patch.setattr(ExLlamaV2, name, self._noted(getattr(ExLlamaV2, name)))
        patch.setattr(generator_module.ExLlamaV2DynamicGenerator, "iterate", iterated)
        patch.setattr(generator_module.ExLlamaV2DynamicGenerator, "__init__", begun)

    def _noted(self, loader: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(loader)
        def load(model: Any, *arguments: Any, **named: Any) -> None:
            plain = {name: value for name, value in named.items() if name in ("gpu_split", "reserve_vram", "expect_cache_tokens")}
            self.loads.append((loader.__name__, plain))
            loader(model, *arguments, **named)

        return load

    def _place_function(self) -> Callable[..., None]:
        def load(module: Any, **_: Any) -> None:
            self.faults.meet("load")
            card = module.device_idx
            folder = Path(module.model.config.model_dir).name
            taken = sum(one == card for _, _, one in self.placed)
            if taken >= self.room.get(card, taken + 1):
                raise torch.cuda.OutOfMemoryError(Faults.WORDS)
            self.placed.append((folder, type(module).__name__, card))

        return load

    def _forward_function(self) -> Callable[..., dict[str, torch.Tensor]]:
        def forward_chunk(
            model: Any, input_ids: Any, *, attn_params: Any, cache: Any, preprocess_only: bool = False, **_: Any
        ) -> dict[str, torch.Tensor]:
            drafting = Path(model.config.model_dir).name == "draft"
            if not drafting:
                self.faults.meet("prefill" if preprocess_only else "decode")
            assert preprocess_only or input_ids.shape[1] <= (model.config.max_output_len or VOCAB)
            _store(input_ids, attn_params, cache)
            return (
                {}
                if preprocess_only
                else {"logits": _logits(self.drafter if drafting else self.mind, input_ids, attn_params, cache)}
            )

        return forward_chunk


def _settings(sampling: dict[str, Any]) -> Any:
    named = {PENALTIES.get(name, name): value for name, value in sampling.items() if name != "logit_bias"}
    made = ExLlamaV2Sampler.Settings(**{"top_k": 0, "top_p": 1.0, "token_repetition_penalty": 1.0, **named})
    if "logit_bias" in sampling:
        made.token_bias = torch.zeros(VOCAB)
        for token, weight in sampling["logit_bias"].items():
            made.token_bias[token] = weight
    return made


def _here(make: Any) -> Any:
    """Any card's tensor in this machine's memory."""

    def made(*arguments: Any, **named: Any) -> Any:
        if "device" in named:
            named["device"] = "meta" if str(named["device"]) == "meta" else "cpu"
        return make(*arguments, **named)

    return made


def _passed(module: Any, state: torch.Tensor) -> torch.Tensor:
    return torch.zeros((*state.shape, 8)) if isinstance(module, ExLlamaV2Embedding) else state


# ---- the model: ids written to the first layer's keys and the last one's values, and read back from both -------------------


def _tensors(cache: Any) -> tuple[torch.Tensor, torch.Tensor]:
    one = cache.caches[0] if isinstance(cache, ExLlamaV2Cache_TP) else cache
    keys, values = one.key_states[0][0], one.value_states[-1][0]
    return keys.view(len(keys), -1), values.view(len(values), -1)


def _places(at: int, start: int, count: int, params: Any) -> list[int]:
    """Where in the cache the positions of one request lie."""
    positions = range(start, start + count)
    if not params.paged:
        return list(positions)
    table = params.block_index[at].tolist()
    return [table[position // PAGE] * PAGE + position % PAGE for position in positions]


def _start(at: int, params: Any) -> int:
    return int(params.cache_seqlens[at]) if params.paged else int(params.past_len)


def _store(input_ids: torch.Tensor, params: Any, cache: Any) -> None:
    for at, ids in enumerate(input_ids):
        places = _places(at, _start(at, params), len(ids), params)
        for tensor in _tensors(cache):
            # Two numbers that a byte holds: a quantised cache has no wider ones.
            tensor[places, 0], tensor[places, 1] = (ids % 128).to(tensor.dtype), (ids // 128).to(tensor.dtype)


def _read(at: int, length: int, params: Any, cache: Any) -> list[int]:
    places = _places(at, 0, length, params)
    keys, values = (tensor[places, 0].long() + 128 * tensor[places, 1].long() for tensor in _tensors(cache))
    assert keys.equal(values)
    return [int(one) for one in keys.tolist()]


def _logits(mind: Mind, input_ids: torch.Tensor, params: Any, cache: Any) -> torch.Tensor:
    rows, width = input_ids.shape
    logits = torch.empty((rows, width, VOCAB))
    for at in range(rows):
        ids = _read(at, _start(at, params) + width, params, cache)
        for column in range(width):
            logits[at, column] = row(mind.says(ids[: len(ids) - width + 1 + column]), VOCAB)
    return logits.half()


# ---- the extension, in Python ------------------------------------------------------------------------------------------------


def _extension() -> dict[str, Callable[..., Any]]:
    return {
        "apply_rep_penalty": _penalise,
        "cache_rotate": _rotate,
        "count_match": count_match,
        "fast_fadd_cpu": lambda logits, bias: logits.add_(bias),
        "partial_strings_match": partial_match,
        "sample_basic": _sample,
    }


def _penalise(
    past: Any, repetition: float, reach: int, fade: int, frequency: float, presence: float, logits: torch.Tensor
) -> None:
    assert fade == 0
    ids = past[0] if reach < 0 else past[0, -reach:]
    seen, counts = ids.unique(return_counts=True)
    now = logits[0, 0, seen]
    logits[0, 0, seen] = torch.where(now > 0, now / repetition, now * repetition) - presence - frequency * counts


def _rotate(pages: torch.Tensor, order: torch.Tensor, _buffer: torch.Tensor) -> None:
    """Every page of `order` takes the next one's place, the last the first's."""
    order = order.long()
    pages[order] = pages[order.roll(-1)].clone()


def _sample(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float, top_a: float, min_p: float, tfs: float, typical: float,
    random: float, token: torch.Tensor, probability: torch.Tensor, _top: Any, _top_ids: Any, mask: torch.Tensor, mirostat: bool,
    *rest: Any,
) -> list[float]:  # fmt: skip
    """Temperature, top_k, top_p and min_p; the others must be off."""
    assert mask.is_meta
    assert not any((top_a, tfs, typical, mirostat))
    greedy = temperature < 0.01
    chances = (logits[0, 0] / (1.0 if greedy else temperature)).softmax(-1)
    chances, order = chances.sort(descending=True, stable=True)
    kept = torch.ones_like(chances, dtype=torch.bool)
    if greedy or top_k:
        kept[1 if greedy else top_k :] = False
    if 0 < top_p < 1:
        kept &= chances.cumsum(-1) - chances < top_p
    kept &= chances >= min_p * chances[0]
    chances = (chances * kept) / (chances * kept).sum()
    at = int((chances.cumsum(-1) > random * 0.9998).nonzero()[0])
    token[0, 0], probability[0, 0] = order[at], chances[at]
    return []
