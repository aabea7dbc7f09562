"""ExLlamaV3 on a CPU: its own loader's front, caches, generator, samplers and filters, with a Mind for a model."""

from __future__ import annotations

import functools
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import engine3  # noqa: F401  (its import puts stand-ins where exllamav3 looks for its extension)
import exllamav3
import exllamav3.generator.generator as generator_module
import folders
import torch
from exllamav3.model.model import Model
from exllamav3.util import memory, misc
from rig import BOS, CONFIG, EOS, OTHER_EOS, VOCAB, Faults, Mind, alive, count_match, on_cpu, partial_match, row, vocabulary
from synthetic import exl3, sparse_safetensors

import hydra_infer
from hydra_infer.engines.exllama import load as load_module
from hydra_infer.engines.exllama.preflight import Surroundings
from hydra_infer.hardware.gpu import Gpu
from hydra_infer.units import GIB, Size

__all__ = ["Rig"]

# What ComboSampler calls the request's fields.
COMBO = {"repetition_penalty": "rep_p", "frequency_penalty": "freq_p", "presence_penalty": "pres_p"}

TESTS = Path(__file__).resolve().parent.parent
HYBRID = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "vocab_size": VOCAB,
    "eos_token_id": EOS,
    "bos_token_id": BOS,
}

CPU = torch.device("cpu")
CARDS = [Gpu("RTX 5090", free=31, index=0, uuid="GPU-a"), Gpu("RTX 4090", free=23, index=1, uuid="GPU-b")]


class Rig:
    """One machine with two cards, a model's folder and a drafter's. `mind` and `drafter` may be changed between loads."""

    name = "exllamav3"

    def __init__(self, folder: Path) -> None:
        self.folder = vocabulary(exl3(folder / "model", CONFIG, 4.0))
        self.draft_folder = vocabulary(exl3(folder / "draft", CONFIG | {"num_hidden_layers": 1}, 4.0))
        self.mind, self.drafter = Mind(), Mind(slip=3)
        self.faults = Faults()
        self.threads: set[int] = set()  # on which iterate() ran
        self.workers: list[int] = []  # tensor parallel's, while they live
        self.loads: list[dict[str, Any]] = []  # what each model was loaded with
        self.generators: list[dict[str, Any]] = []  # the plain arguments that each was made with
        self.caches: list[tuple[str, dict[str, Any], int, int]] = []  # (class of layers, bits, slots, history)
        self.unlimited: list[list[int]] = []  # cards whose limit on the process was lifted
        self.pictures = 0  # how many the tower has looked at
        self.warmups = 0
        self._sees = False

    # ---- what scenarios ask

    def engine(self, **settings: Any) -> hydra_infer.Engine:
        """An Engine by the public door."""
        settings = {"context": 2048, "progress": False, **settings}
        if settings.get("draft") == "model":
            settings["draft"] = self.draft_folder
        return hydra_infer.load(self.folder, **settings)

    def raw(self, prompts: Sequence[str], *, tokens: int = 32, seed: int | None = None, **sampling: Any) -> list[list[int]]:
        """What the engine's own generator says to each prompt, one after the other, with its own combined sampler."""
        config = exllamav3.Config.from_directory(str(self.folder))
        model = exllamav3.Model.from_config(config)
        cache = exllamav3.Cache(model, max_num_tokens=2048)
        own = exllamav3.Tokenizer.from_config(config)
        model.load(device="cuda:0")
        generator = exllamav3.Generator(model, cache, own, max_batch_size=1)
        said = []
        for prompt in prompts:
            ids = own.encode(prompt, add_bos=True, encode_special_tokens=True)
            sampler = exllamav3.ComboSampler(**{COMBO.get(name, name): value for name, value in sampling.items()})
            job = exllamav3.Job(ids, max_new_tokens=tokens, seed=seed, sampler=sampler, stop_conditions=[EOS, OTHER_EOS])
            generator.enqueue(job)
            while generator.num_remaining_jobs():
                generator.iterate()
            said.append(job.sequences[0].sequence_ids.torch()[0, ids.shape[-1] :].tolist())
        generator.close()
        model.unload()
        return said

    def alive(self) -> dict[str, int]:
        kinds = (exllamav3.Config, Model, exllamav3.Cache, exllamav3.Generator, exllamav3.Job)
        return {**alive(kinds), "workers": len(self.workers)}

    def used(self, engine: hydra_infer.Engine) -> int:
        """Tokens of the cache that jobs hold; asked on the engine's own thread."""
        thread = engine._core._driver.thread
        return int(thread.call(lambda: thread.stepper.runner().facts()["used_tokens"]).result())

    def seeing(self) -> Rig:
        """From now on the model has a vision tower."""
        self._sees = True
        return self

    def hybrid(self) -> Rig:
        """From now on the model is a small Qwen3.5: recurrent layers, and an MTP head."""
        config = json.loads((TESTS / "data" / "configs" / "Qwen3.5-27B.json").read_text(encoding="utf-8"))
        config["text_config"] |= HYBRID
        folder = self.folder.with_name("hybrid")
        own, model = folders.prepare(folder, config, "qwen")
        folders.write(folder, config, model, own, 4.0)
        head = Model.from_config(own, component="mtp")
        sparse_safetensors(folder / "mtp.safetensors", [*folders.entries(head, folders.text_config(config), {})])
        self.folder = vocabulary(folder)
        return self

    # ---- what stands in for the compiled part and the model

    @contextmanager
    def installed(self, patch: Any) -> Iterator[Rig]:
        patch.setattr(load_module, "look", lambda _engine: self._surroundings())
        with on_cpu(patch):
            self._extension(patch)
            patch.setattr(misc, "_has_primary_context", None)
            patch.setattr(memory, "unset_memory_fraction", self.unlimited.append)
            for name, method in (
                ("_load_single", self._load_single),
                ("_load_autosplit", self._load_split),
                ("_load_tp", self._load_parallel),
                ("destroy_tp_context", self._end_workers),
                ("tp_cache_page_copy", _copy_page),
                ("tp_rotate_cache_pages", _rotate_pages),
                ("forward", self._forward),
                ("prefill", self._prefill),
            ):
                patch.setattr(Model, name, _unbound(method))
            self._watch(patch)
            yield self

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            cards=CARDS, installed=True, cuda="13.0", extension=True, guarded=True, worker=False, shm=Size(8 * GIB), cores=16
        )

    def _extension(self, patch: Any) -> None:
        extension = sys.modules["exllamav3_ext"]
        functions: dict[str, Callable[..., Any]] = {
            "generator_stage_decode": _stage_decode,
            "count_match_tensor": count_match,
            "partial_strings_match": partial_match,
            "gumbel_noise_f16": _gumbel,
            "gumbel_noise_f32": _gumbel,
            "gumbel_noise_log": _gumbel_log,
            "apply_rep_pens": _repetition,
            "apply_pres_freq_pens": _presence,
            "apply_logit_bitmask": _bitmask,
            "cache_rotate": _rotate,
            "BC_SAM": _Suffixes,
        }
        for name, function in functions.items():
            patch.setattr(extension, name, function, raising=False)

    def _watch(self, patch: Any) -> None:
        iterate, begin, cached = exllamav3.Generator.iterate, exllamav3.Generator.__init__, exllamav3.Cache.__init__
        read = exllamav3.Config.from_directory

        def iterated(generator: Any) -> Any:
            self.threads.add(threading.get_ident())
            return iterate(generator)

        def begun(generator: Any, *arguments: Any, **named: Any) -> None:
            self.generators.append({name: one for name, one in named.items() if isinstance(one, int | None)})
            begin(generator, *arguments, **named)

        def kept(cache: Any, *arguments: Any, **named: Any) -> None:
            cached(cache, *arguments, **named)
            bits = {name: named[name] for name in ("k_bits", "v_bits") if name in named}
            self.caches.append((cache.layer_type.__name__, bits, cache.num_slots, cache.max_history))

        def configured(*arguments: Any, **named: Any) -> Any:
            config = read(*arguments, **named)
            if self._sees:
                config.model_classes = {**config.model_classes, "vision": functools.partial(_Tower, self)}
            return config

        begun.__wrapped__, kept.__wrapped__ = begin, cached  # so that their signatures are still the real ones
        patch.setattr(generator_module.Generator, "iterate", iterated)
        patch.setattr(generator_module.Generator, "__init__", begun)
        patch.setattr(exllamav3.Cache, "__init__", kept)
        patch.setattr(exllamav3.Config, "from_directory", configured)

    # ---- loading: the caches are real, weights there are none

    def _load_single(self, *given: Any) -> None:
        model, _, device, _, modules, _ = given
        self.loads.append({"name": Path(model.config.directory).name, "component": model.component, "device": str(device)})
        for module in modules:
            self._place(module)

    def _load_split(self, *given: Any) -> Iterator[tuple[int, int]]:
        model, _, reserve, use, cards, chunk = given[:6]
        told, tapped = given[8] or (lambda *_: None), given[-1]
        facts = {"reserve": reserve, "use": use, "cards": list(cards), "chunk": chunk, "tapped": tapped}
        self.loads.append({"name": Path(model.config.directory).name, **facts})
        yield from self._walk(model, told)

    def _load_parallel(self, *given: Any) -> Iterator[tuple[int, int]]:
        model, cards, told, backend = given[0], given[4], given[8] or (lambda *_: None), given[14]
        self.loads.append({"name": Path(model.config.directory).name, "parallel": list(cards), "backend": backend})
        self.workers += cards
        model.mp_children = list(cards)
        yield from self._walk(model, told)
        model.loaded_tp = True

    def _walk(self, model: Any, told: Callable[[int, int], None]) -> Iterator[tuple[int, int]]:
        for index, module in enumerate(model.modules):
            told(index, len(model.modules))
            self._place(module)
        told(len(model.modules), len(model.modules))
        yield len(model.modules), len(model.modules)

    def _place(self, module: Any) -> None:
        self.faults.meet("load")
        for part in module:
            part.device = CPU
            for layer in (*getattr(part, "cache_layers", ()), *getattr(part, "recurrent_layers", ())):
                layer.alloc(CPU)

    def _end_workers(self, model: Any) -> None:
        self.workers.clear()
        model.mp_children = []

    # ---- the model

    def _prefill(self, model: Any, input_ids: Any, params: Any) -> None:
        self.faults.meet("prefill")
        _store(input_ids, params)

    def _forward(self, model: Any, input_ids: Any, params: Any) -> torch.Tensor | None:
        if params.get("tp_warmup"):
            self.warmups += 1
            return None
        drafting = Path(model.config.directory).name == "draft"
        if not drafting:
            self.faults.meet("decode")
        mind = self.drafter if drafting else self.mind
        _store(input_ids, params)
        rows, width = input_ids.shape
        logits = torch.empty((rows, width, VOCAB))
        for at in range(rows):
            ids = _read(at, int(params["cache_seqlens"][at]) + width, params)
            for column in range(width):
                logits[at, column] = row(mind.says(ids[: len(ids) - width + 1 + column]), VOCAB)
        return logits.half()


class _Tower(Model):
    """A vision tower that sees every picture as sixteen tokens."""

    def __init__(self, rig: Rig, config: Any) -> None:
        super().__init__(config)
        self._rig = rig
        self.modules = [_Glass()]

    def get_image_embeddings(self, tokenizer: Any, image: Any, text_alias: str | None = None) -> Any:
        assert image.mode == "RGB"
        self._rig.pictures += 1
        return exllamav3.MMEmbedding(
            embeddings=torch.zeros((16, CONFIG["hidden_size"])),
            token_string=torch.full((1, 16), -1),
            text_alias=text_alias,
        )


class _Glass:
    """The only module of a _Tower."""

    device = CPU
    layer_idx = None

    def __iter__(self) -> Iterator[_Glass]:
        yield self

    def unload(self) -> None: ...


def _unbound(method: Callable[..., Any]) -> Callable[..., Any]:
    """A bound method as a function, which a class can bind again."""

    def call(*arguments: Any, **named: Any) -> Any:
        return method(*arguments, **named)

    return call


def _pages(params: Any) -> torch.Tensor:
    """The first cached tensor of the model: one row per page and position."""
    cache = params["cache"]
    tensor = next(iter(cache.layers.values())).get_tensors()[0]
    return tensor.view(*tensor.shape[:2], -1)


def _store(input_ids: torch.Tensor, params: Any) -> None:
    """Write ids where the block table says; a picture's, which are above a billion, as numbers that fp16 holds."""
    pages, table = _pages(params), params["block_table"]
    for at in range(input_ids.shape[0]):
        start = int(params["cache_seqlens"][at])
        for column, one in enumerate(input_ids[at].tolist()):
            position = start + column
            pages[int(table[at, position // 256]), position % 256, 0] = one if one < VOCAB else 1000 + one % 1000


def _read(at: int, length: int, params: Any) -> list[int]:
    pages, table = _pages(params), params["block_table"]
    used = table[at, : -(-length // 256)].long()
    return [int(one) for one in pages[used, :, 0].flatten()[:length].tolist()]


def _copy_page(model: Any, cache_id: int, source: int, target: int, tokens: int) -> None:
    for layer in model.cache_weakrefs[cache_id]().layers.values():
        layer.copy_page(layer, source, target, tokens)


def _rotate_pages(model: Any, cache_id: int, rotations: torch.Tensor) -> None:
    for tensor in model.cache_weakrefs[cache_id]().get_all_tensors():
        _rotate(tensor, rotations, torch.empty_like(tensor[0]))


# ---- the extension, in Python ------------------------------------------------------------------------------------------------


def _stage_decode(
    arena: Any, width: int, tables: Any, positions: Any, ropes: Any, ids: Any, sequences: Any, pages: Any, offsets: Any
) -> None:
    rows = len(tables)
    table, lengths = arena[: rows * width].view(rows, width), arena[rows * width : rows * width + rows]
    for at in range(rows):
        count = min(tables[at].numel(), width)
        table[at].zero_()
        table[at, :count] = tables[at].flatten()[:count]
        lengths[at] = positions[at]
    for at, sequence in enumerate(sequences):
        token = sequence.flatten()[positions[at]]
        ids[at, 0] = token
        pages[at].view(-1)[offsets[at]] = token


def _gumbel(logits: torch.Tensor, out: torch.Tensor, seed: int) -> None:
    """Noise that depends on nothing but the seed."""
    noise = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)).clamp_min(1e-9)
    out.copy_(logits.float() - torch.log(-torch.log(noise)))


def _gumbel_log(probabilities: torch.Tensor, out: torch.Tensor, seed: int) -> None:
    _gumbel(torch.log(probabilities), out, seed)


def _repetition(logits: Any, out: Any, past: Any, penalty: float, reach: int, fade: int) -> None:
    assert fade == 0
    out.copy_(logits)
    seen = past[0, -min(reach, past.shape[-1]) :].unique()
    out[0, seen] = torch.where(out[0, seen] > 0, out[0, seen] / penalty, out[0, seen] * penalty)


def _presence(logits: Any, out: Any, past: Any, presence: float, frequency: float, reach: int, fade: int) -> None:
    assert fade == 0
    seen, counts = past[0, -min(reach, past.shape[-1]) :].unique(return_counts=True)
    out.copy_(logits)
    out[0, seen] -= presence + frequency * counts


def _bitmask(logits: torch.Tensor, out: torch.Tensor, mask: torch.Tensor) -> None:
    width = logits.shape[-1]
    bits = (mask.view(-1, 1) >> torch.arange(32)) & 1
    allowed = torch.zeros(width, dtype=torch.bool)
    allowed[: bits.numel()] = bits.flatten()[:width].bool()
    out.copy_(logits.masked_fill(~allowed, -float("inf")))


def _rotate(pages: torch.Tensor, rotations: torch.Tensor, _buffer: torch.Tensor) -> None:
    """Pairs of (target, source) page, -1 for the buffer."""
    kept = None
    for target, source in rotations.view(-1, 2).tolist():
        page = kept if source < 0 else pages[source].clone()
        if target < 0:
            kept = page
        else:
            pages[target] = page


class _Suffixes:
    """The longest suffix that occurred before: (where that occurrence begins, where it ends)."""

    def accept_tensor(self, sequence: torch.Tensor) -> tuple[int, int]:
        ids = sequence[0].tolist()
        for length in range(min(len(ids) - 1, 32), 0, -1):
            suffix = ids[-length:]
            for begin in range(len(ids) - length - 1, -1, -1):
                if ids[begin : begin + length] == suffix:
                    return begin, begin + length
        return 0, 0
