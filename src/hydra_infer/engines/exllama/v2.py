"""V2: exllamav2 0.3.2, for those who have EXL2 files, behind the seam of the ExLlama engines."""

from __future__ import annotations

import functools
import json
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ..driver import EngineInfo
from . import signature, v2_models
from .trouble import named, opened
from .v2_grammar import grammar_filter, grammar_tokens
from .v2_results import mended
from .v2_sampling import SAMPLING, settings

if TYPE_CHECKING:
    from ...planner.report import Plan
    from ..progress import Report
    from .seam import Ask, Constraint, Extras, Image
    from .v2_models import Models

__all__ = ["open_runner"]

NAME = "exllamav2"


def open_runner(plan: Plan, extras: Extras, report: Report) -> V2Runner:
    """Load what the plan says (see seam.Opener)."""
    return opened(lambda undo: V2Runner(plan, extras, report, undo), NAME)


class V2Runner:
    """A model that exllamav2 has loaded; a seam.Runner.

    Without flash-attn one request is answered at a time. A job claims the pages of all it may generate, so one without
    max_tokens has the cache for itself.
    """

    sampling = SAMPLING

    def __init__(self, plan: Plan, extras: Extras, report: Report, undo: ExitStack) -> None:
        request = plan.request
        self._undo, self._extras, self._slots = undo, extras, request.slots
        self._drafter = request.drafter
        self._draft_tokens = request.drafter.tokens if request.drafter else 0
        self._shape = v2_models.Shape.of(plan)
        self.parallel = plan.split == "tensor"
        self._models: Models | None = v2_models.load(plan, extras, self._shape, report, undo)
        self._generator: Any = self._new_generator()
        undo.callback(self._stop)
        if extras.warmup:
            report(1.0, "warming up")
            self._generator.warmup()
        self.info = EngineInfo(
            name=NAME,
            model=request.spec.name,
            context=plan.cache_tokens,
            slots=self._generator.max_batch_size,
            format=request.spec.format,
            cache=request.rate.name,
            path=str(request.spec.path),
        )

    # ---- words

    def encode(self, text: str, *, whole: bool, images: Sequence[Image] = ()) -> tuple[list[int], Sequence[Any]]:
        if images:
            raise ConfigError(f"{self.info.model} reads no pictures: exllamav2 here takes text only", hint="an EXL3 of it can")
        ids = signature.call(self._tokenizer.encode, text=text, add_bos=whole and self._wants_bos, encode_special_tokens=True)
        return ids[0].tolist(), ()

    def plain_ids(self, text: str) -> list[int]:
        reader = self._tokenizer.tokenizer_model.hf_tokenizer
        # It would find special tokens in any text, whatever the tokenizer around it is told.
        reader.encode_special_tokens = True
        try:
            ids: list[int] = self._tokenizer.encode(text)[0].tolist()
        finally:
            reader.encode_special_tokens = False
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        # exllamav2's own decoding leaves out the token that ends a text, where it pads with it.
        text: str = self._tokenizer.tokenizer_model.hf_tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def pieces(self) -> Sequence[str]:
        pieces: list[str] = self._tokenizer.get_id_to_piece_list(include_special_tokens=True)
        return pieces

    def stop_ids(self) -> Sequence[int]:
        return self._ends

    # ---- jobs

    def room(self, prompt_tokens: int) -> int:
        """The generator ends an answer a whole draft before its last page is full (see job)."""
        left: int = self._generator.max_total_tokens - prompt_tokens - self._draft_tokens
        return left

    def job(self, ask: Ask) -> Any:
        import torch
        from exllamav2.generator import ExLlamaV2DynamicJob

        self._refuse(ask)
        return signature.call(
            ExLlamaV2DynamicJob,
            input_ids=torch.tensor([ask.ids], dtype=torch.long),
            # The engine takes the length of a draft off this (dynamic.py, receive_sample).
            max_new_tokens=ask.max_tokens + self._draft_tokens,
            min_new_tokens=ask.min_tokens,
            gen_settings=settings(ask.sampling, prompt_tokens=len(ask.ids), vocabulary=self._loaded.model.config.vocab_size),
            seed=ask.seed,
            stop_conditions=list(ask.stop),
            banned_strings=list(ask.banned),
            decode_special_tokens=ask.special,
            # Not return_probs: those are of what sampling left, 1.0 for the one token left at temperature 0.
            return_logits=ask.top_logprobs is not None,
            identifier=ask.top_logprobs,
            filters=[] if ask.constraint is None else [self._filter(ask.constraint)],
        )

    def enqueue(self, raw: Any) -> None:
        self._generator.enqueue(raw)

    def iterate(self) -> list[dict[str, Any]]:
        try:
            results = self._generator.iterate()
        except Exception as error:
            reading = any(frame.name == "prefill" for frame in traceback.extract_tb(error.__traceback__))
            raise named(error, NAME, "prefill" if reading else "decode") from error
        return [mended(result) for result in results]

    def cancel(self, raw: Any) -> None:
        self._generator.cancel(raw)

    def rebuild(self) -> None:
        self._stop()
        self._generator = self._new_generator()

    def facts(self) -> dict[str, Any]:
        """Occupancy, in exllamav3's words. Jobs hold whole pages, and without flash-attn the cache is a single one."""
        generator = self._generator
        return {
            "max_tokens": generator.max_total_tokens,
            "used_tokens": len(generator.referenced_pages) * generator.page_size,
            "active_jobs": len(generator.active_jobs),
            "pending_jobs": len(generator.pending_jobs),
        }

    def close(self) -> None:
        self._models = None
        self._undo.close()

    # ---- inside

    @property
    def _loaded(self) -> Models:
        if self._models is None:
            raise ConfigError("the model has been unloaded")
        return self._models

    @property
    def _tokenizer(self) -> Any:
        return self._loaded.tokenizer

    @functools.cached_property
    def _wants_bos(self) -> bool:
        """What tokenizer_config.json says of add_bos_token, else what the tokenizer's own post-processor does."""
        tokenizer = self._tokenizer
        said = (tokenizer.tokenizer_config_dict or {}).get("add_bos_token")
        return bool(
            tokenizer.tokenizer_model.hf_tokenizer.encode("").ids[:1] == [tokenizer.bos_token_id] if said is None else said
        )

    @functools.cached_property
    def _ends(self) -> list[int]:
        """The tokenizer's, those of config.json, of which exllamav2 keeps one, and those of generation_config.json."""
        config = self._loaded.model.config
        written = json.loads(Path(config.model_config).read_text(encoding="utf-8")).get("eos_token_id")
        generating = getattr(config, "generation_config", {}).get("eos_token_id") or []
        several = written if isinstance(written, list) else [written]
        return sorted({self._tokenizer.eos_token_id, *several, *generating} - {None})

    @functools.cached_property
    def _grammar_tokens(self) -> Any:
        return grammar_tokens(self._tokenizer, self.stop_ids())

    def _filter(self, constraint: Constraint) -> Any:
        return grammar_filter(constraint, self._loaded.model, self._tokenizer, self._grammar_tokens)

    def _refuse(self, ask: Ask) -> None:
        """What would fail in the middle of a step, for every job in it, or answer wrongly."""
        if ask.banned and ask.constraint is not None:
            raise ConfigError(
                "banned_strings beside a schema or grammar: exllamav2 does one of them", hint="put it in the grammar"
            )
        if ask.banned and self._draft_tokens:
            raise ConfigError(
                "banned_strings with a draft: exllamav2 takes back drafted tokens wrongly", hint="load without draft="
            )
        if self._drafter is not None and self._drafter.kind == "ngram" and len(ask.ids) < self._generator.max_ngram - 1:
            raise ConfigError(
                f"a prompt of {len(ask.ids)} tokens is too short for exllamav2's n-grams of {self._generator.max_ngram}",
                hint="a longer prompt, or load without draft='ngram'",
            )

    def _new_generator(self) -> Any:
        from exllamav2.generator import ExLlamaV2DynamicGenerator

        models = self._loaded
        ours: dict[str, Any] = {
            "model": models.model,
            "cache": models.cache,
            "tokenizer": models.tokenizer,
            "max_batch_size": self._slots,
            "max_chunk_size": self._shape.chunk,
            "max_q_size": self._shape.rows,
            "paged": models.paged,
        }
        if self._drafter is not None:
            ours |= {"num_draft_tokens": self._draft_tokens, "use_ngram_draft": self._drafter.kind == "ngram"}
            ours |= {"draft_model": models.draft, "draft_cache": models.draft_cache}
        return signature.call(ExLlamaV2DynamicGenerator, **signature.beside(ours, self._extras.options))

    def _stop(self) -> None:
        """Let the generator go, and end its threads now; they would end when it is collected."""
        generator, self._generator = self._generator, None
        for pool in ("sampling_pool", "filter_pool"):
            threads = getattr(generator, pool, None)
            if threads is not None:
                threads.shutdown()
