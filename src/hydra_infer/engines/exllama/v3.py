"""V3: exllamav3 (1.0 and later, written against 1.6.5) behind the seam of the ExLlama engines."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, MissingExtra
from ..driver import EngineInfo
from . import signature, v3_models
from .held import with_held
from .trouble import opened
from .v3_sampling import SAMPLING, sampler

if TYPE_CHECKING:
    from ...planner.report import Plan
    from ..progress import Report
    from .seam import Ask, Constraint, Extras, Image
    from .v3_pictures import Pictures

__all__ = ["open_runner"]

NAME = "exllamav3"

PAGE = 256  # tokens, exllamav3 1.6.5 constants.py

# Tokens that must repeat before what followed them is drafted. Fewer match by chance, and each wrong draft costs a
# verification; options={"ngram_match_min": …} changes it.
NGRAM_MATCH = 3

GRAMMARS = {"json_schema": "json_schema", "regex": "regex", "lark": "lark_grammar", "gbnf": "gbnf_grammar"}


def open_runner(plan: Plan, extras: Extras, report: Report) -> V3Runner:
    """Load what the plan says (see seam.Opener)."""
    return opened(lambda undo: V3Runner(plan, extras, report, undo), NAME)


class V3Runner:
    """A model that exllamav3 has loaded; a seam.Runner."""

    sampling = SAMPLING

    def __init__(self, plan: Plan, extras: Extras, report: Report, undo: ExitStack) -> None:
        request = plan.request
        self._undo, self._extras = undo, extras
        self._ngram = request.drafter is not None and request.drafter.kind == "ngram"
        self._slots = request.slots
        # A chunk of prefill ends on a page.
        self._chunk = max(PAGE, min(request.chunk, plan.cache_tokens) // PAGE * PAGE)
        # A job claims pages for all that it may generate. With several slots it does so a piece at a time, so that one without
        # a limit leaves room for others.
        self._piece = max(PAGE, min(self._chunk, plan.cache_tokens // request.slots // PAGE * PAGE))
        self.parallel = plan.split == "tensor"
        self._models = v3_models.load(plan, extras, report, undo)
        if self.parallel if extras.warmup is None else extras.warmup:
            v3_models.warm_up(self._models, slots=request.slots, chunk=self._chunk, report=report)
        self._generator = self._new_generator()
        undo.callback(lambda: self._generator.close())
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
        embeddings = [self._pictures().embedding(image.data) for image in images]
        for image, embedding in zip(images, embeddings, strict=True):
            text = text.replace(image.mark, embedding.text_alias)
        ids = signature.call(
            self._models.tokenizer.encode,
            text=text,
            add_bos=whole and self._wants_bos,
            encode_special_tokens=True,
            embeddings=embeddings,
        )
        return ids[0].tolist(), embeddings

    def plain_ids(self, text: str) -> list[int]:
        ids: list[int] = self._models.tokenizer.encode(text)[0].tolist()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        import torch

        text: str = signature.call(
            self._models.tokenizer.decode, ids=torch.tensor(ids, dtype=torch.long), decode_special_tokens=True
        )
        return text

    def pieces(self) -> Sequence[str]:
        pieces: list[str] = self._models.tokenizer.get_id_to_piece_list(include_special_tokens=True)
        return pieces

    def stop_ids(self) -> Sequence[int]:
        """Those of config.json, tokenizer_config.json and generation_config.json: the tokenizer gathers them."""
        ids: list[int] = self._models.config.eos_token_id_list
        return ids

    # ---- jobs

    def room(self, prompt_tokens: int) -> int:
        """What job.py prepare_for_queue leaves: one token and a whole draft are written beyond the last."""
        left: int = self._generator.max_total_tokens - prompt_tokens - 1 - self._generator.max_draft_tokens
        return left

    def job(self, ask: Ask) -> Any:
        import exllamav3
        import torch

        arguments: dict[str, Any] = {
            "input_ids": torch.tensor([ask.ids], dtype=torch.long),
            "max_new_tokens": ask.max_tokens,
            "min_new_tokens": ask.min_tokens,
            "sampler": sampler(ask.sampling, self._models.tokenizer),
            "seed": ask.seed,
            "stop_conditions": list(ask.stop),
            "banned_strings": list(ask.banned),
            "decode_special_tokens": ask.special,
            "return_probs": ask.top_logprobs is not None,
            "return_top_tokens": ask.top_logprobs or 0,
            "filters": [] if ask.constraint is None else [self._filter(ask.constraint)],
            "embeddings": list(ask.images),
        }
        if self._slots > 1 and ask.max_tokens > self._piece:
            arguments["max_rq_tokens"] = self._piece
        return signature.call(exllamav3.Job, **arguments)

    def enqueue(self, raw: Any) -> None:
        self._generator.enqueue(raw)

    def iterate(self) -> list[dict[str, Any]]:
        return [with_held(result) for result in self._generator.iterate()]

    def cancel(self, raw: Any) -> None:
        self._generator.cancel(raw)

    def rebuild(self) -> None:
        from exllamav3.util import memory

        self._generator.close()
        memory.free_mem()
        self._generator = self._new_generator()

    def facts(self) -> dict[str, Any]:
        """Occupancy and reuse of the cache, in tokens and pages (generator.py get_cache_stats)."""
        facts: dict[str, Any] = self._generator.get_cache_stats()
        return facts

    def close(self) -> None:
        self._undo.close()

    # ---- inside

    @functools.cached_property
    def _wants_bos(self) -> bool:
        """What tokenizer_config.json says of add_bos_token, else what the tokenizer's own post-processor does."""
        tokenizer = self._models.tokenizer
        said = (tokenizer.tokenizer_config_dict or {}).get("add_bos_token")
        return bool(tokenizer.tokenizer.encode("").ids[:1] == [tokenizer.bos_token_id] if said is None else said)

    def _pictures(self) -> Pictures:
        models = self._models
        if models.pictures is None:
            raise ConfigError(f"{self.info.model} was loaded without its picture encoder", hint="load(…, vision=True)")
        if models.drafter is not None and not models.drafter.caps.get("mtp_draft"):
            raise ConfigError("a draft model cannot read pictures", hint="draft='mtp', 'ngram' or none")
        return models.pictures

    def _new_generator(self) -> Any:
        import exllamav3

        models = self._models
        ours: dict[str, Any] = {
            "model": models.model,
            "cache": models.cache,
            "tokenizer": models.tokenizer,
            "max_batch_size": self._slots,
            "max_chunk_size": self._chunk,
        }
        if models.drafter is not None:
            ours |= {"draft_model": models.drafter, "draft_cache": models.draft_cache}
            ours |= {"dynamic_draft_tokens": self._extras.dynamic_draft}
        if models.draft_tokens:
            ours["num_draft_tokens"] = models.draft_tokens
        ngram = {"ngram_match_min": NGRAM_MATCH} if self._ngram else {}
        return signature.call(exllamav3.Generator, **(ngram | signature.beside(ours, self._extras.options)))

    def _filter(self, constraint: Constraint) -> Any:
        import exllamav3
        from exllamav3.generator.filter import llguidance

        if not llguidance.llguidance_available:
            raise MissingExtra(
                "constrained answers need llguidance, which is not installed", hint="pip install 'llguidance>=1.7'"
            )
        grammar = {GRAMMARS[constraint.kind]: constraint.text}
        try:
            return signature.call(
                exllamav3.LLGuidanceFilter, tokenizer=self._models.tokenizer, eos_after_completed=True, **grammar
            )
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"{constraint.kind} is not one that llguidance reads: {error}") from error
