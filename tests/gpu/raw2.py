"""Raw2: exllamav2's own API and nothing of ours: what the Engine is measured against. One request at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from hydra_infer.planner.report import Plan

__all__ = ["Raw"]


class Raw:
    """A model loaded by exllamav2 itself, without flash-attn (paged=False), with what a plan counted."""

    def __init__(self, plan: Plan) -> None:
        import exllamav2

        config = exllamav2.ExLlamaV2Config(str(plan.request.spec.path))
        config.max_seq_len = plan.cache_tokens
        config.max_input_len, config.max_attention_size = plan.request.chunk, plan.request.chunk**2
        self._model = exllamav2.ExLlamaV2(config)
        self._cache = exllamav2.ExLlamaV2Cache(self._model, max_seq_len=plan.cache_tokens, lazy=True)
        self._tokenizer = exllamav2.ExLlamaV2Tokenizer(config)
        self._generator: Any = None

    def __enter__(self) -> Self:
        from exllamav2.generator import ExLlamaV2DynamicGenerator

        self._model.load_autosplit(self._cache)
        self._generator = ExLlamaV2DynamicGenerator(
            model=self._model, cache=self._cache, tokenizer=self._tokenizer, max_batch_size=1, paged=False
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._generator = None
        self._model.unload()

    def run(self, prompts: Sequence[list[int]], tokens: int) -> dict[str, Any]:
        """One prompt after the other, greedy: `seconds` from the first to the last, `tokens` made, the last job's speeds."""
        import torch
        from exllamav2.generator import ExLlamaV2DynamicJob, ExLlamaV2Sampler

        began, made, text, last = time.perf_counter(), 0, "", {}
        for ids in prompts:
            job = ExLlamaV2DynamicJob(
                input_ids=torch.tensor([ids], dtype=torch.long),
                max_new_tokens=tokens,
                gen_settings=ExLlamaV2Sampler.Settings.greedy(),
                stop_conditions=[self._tokenizer.eos_token_id],
            )
            self._generator.enqueue(job)
            while self._generator.num_remaining_jobs():
                for result in self._generator.iterate():
                    text += result.get("text", "")
                    if result["eos"]:
                        made, last = made + result["new_tokens"], result
        return {
            "seconds": time.perf_counter() - began,
            "tokens": made,
            "text": text,
            "prefill_tps": (last["prompt_tokens"] - last["cached_tokens"]) / last["time_prefill"],
            "decode_tps": (last["new_tokens"] - 1) / last["time_generate"],
        }
