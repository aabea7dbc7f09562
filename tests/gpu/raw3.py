"""Raw3: exllamav3's own API and nothing of ours, as its examples use it: what the Engine is measured against."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from hydra_infer.planner.report import Plan

__all__ = ["Raw"]


class Raw:
    """A model loaded by exllamav3 itself, with what a plan counted. Used as a context manager on the thread that loads it."""

    def __init__(self, plan: Plan, *, tensor: bool = False) -> None:
        import exllamav3
        import torch

        options = plan.engine_options()
        bits = {name: value for name, value in options["cache"].items() if name in ("k_bits", "v_bits")}
        kind = {"layer_type": exllamav3.CacheLayer_quant, **bits} if bits else {"layer_type": exllamav3.CacheLayer_fp16}
        self._how = {"tensor_p": True} if tensor else {"device": torch.device("cuda:0")}
        self._chunk, self._slots = min(plan.request.chunk, plan.cache_tokens), plan.request.slots
        config = exllamav3.Config.from_directory(str(plan.request.spec.path))
        self._model = exllamav3.Model.from_config(config)
        self._cache = exllamav3.Cache(self._model, max_num_tokens=plan.cache_tokens, max_batch_size=plan.request.slots, **kind)
        self._tokenizer = exllamav3.Tokenizer.from_config(config)
        self._ends = list(config.eos_token_id_list)
        self._generator: Any = None

    def __enter__(self) -> Self:
        import exllamav3

        try:
            self._model.load(max_chunk_size=self._chunk, **self._how)
            self._generator = exllamav3.Generator(
                model=self._model,
                cache=self._cache,
                tokenizer=self._tokenizer,
                max_batch_size=self._slots,
                max_chunk_size=self._chunk,
            )
        except BaseException:
            self._free()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._free()

    def run(self, prompts: Sequence[list[int]], tokens: int) -> dict[str, Any]:
        """All prompts at once, greedy: `seconds` from the first to the last, `tokens` made, and the last job's own speeds."""
        import exllamav3
        import torch

        began = time.perf_counter()
        for ids in prompts:
            job = exllamav3.Job(
                input_ids=torch.tensor([ids], dtype=torch.long),
                max_new_tokens=tokens,
                sampler=exllamav3.ArgmaxSampler(),
                stop_conditions=self._ends,
            )
            self._generator.enqueue(job)
        made, text, last = 0, "", {}
        while self._generator.num_remaining_jobs():
            for result in self._generator.iterate():
                if result["stage"] == "error":
                    raise result["error"]
                text += result.get("text", "")
                if result["eos"]:
                    made, last = made + result["new_tokens"], result
        seconds = time.perf_counter() - began
        return {
            "seconds": seconds,
            "tokens": made,
            "text": text,
            "prefill_tps": (last["prompt_tokens"] - last["cached_tokens"]) / last["time_prefill"],
            "decode_tps": (last["new_tokens"] - 1) / last["time_generate"],
        }

    def _free(self) -> None:
        from exllamav3.util.memory import free_mem

        if self._generator is not None:
            self._generator.close()
            self._generator = None
        self._model.unload()
        if self._model.mp_children:
            self._model.destroy_tp_context()
        free_mem()
