"""V2 grammar: llguidance behind exllamav2's filter class, for answers that must match a schema, an expression or a grammar."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from .seam import Constraint

__all__ = ["grammar_filter", "grammar_tokens"]


def grammar_tokens(tokenizer: Any, stop: Sequence[int]) -> Any:
    """llguidance's own reading of exllamav2's tokenizer; `stop` may follow where a text is complete.

    Takes about a second for 150,000 tokens: once for a model.
    """
    try:
        import llguidance
    except ImportError as error:
        raise MissingExtra(
            "constrained answers need llguidance, which is not installed", hint="pip install 'llguidance>=1.7'"
        ) from error
    return llguidance.LLTokenizer(tokenizer.tokenizer_model.hf_tokenizer.to_str(), eos_token=list(stop))


def grammar_filter(constraint: Constraint, model: Any, tokenizer: Any, tokens: Any) -> Any:
    """A filter for one job. Raises ConfigError for a constraint that llguidance does not read."""
    import llguidance

    try:
        grammar = llguidance.grammar_from(constraint.kind, constraint.text)
        problem = llguidance.LLMatcher.validate_grammar(grammar, tokens)
    except ValueError as error:
        problem = str(error)
    if problem:
        raise ConfigError(f"{constraint.kind} is not one that llguidance reads: {problem}")
    return _class()(model, tokenizer, tokens, llguidance.LLMatcher(tokens, grammar))


@functools.cache
def _class() -> Any:
    import torch
    from exllamav2.generator.filters import ExLlamaV2Filter

    class GrammarFilter(ExLlamaV2Filter):  # type: ignore[misc]
        """Masks the logits of tokens that the grammar does not allow.

        Nothing here raises: that would end every job of the step. A matcher that has failed lets the answer only end.
        """

        def __init__(self, model: Any, tokenizer: Any, tokens: Any, matcher: Any) -> None:
            super().__init__(model, tokenizer)
            self._matcher, self._ends = matcher, list(tokens.eos_tokens)
            self._allowed: Any = None

        def begin(self, _prefix: str) -> None:
            self._matcher.reset()

        def feed(self, token: Any) -> None:
            if not self._matcher.is_stopped():
                self._matcher.consume_token(int(token.item()))

        def use_background_worker(self) -> bool:
            return True

        def can_mask_logits(self) -> bool:
            return True

        def prepare_logit_mask(self) -> bool:
            over = self._matcher.is_stopped() or self._matcher.is_error()
            self._allowed = None if over else torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
            return True

        def mask_logits(self, logits: Any) -> Any:
            refused = torch.ones(logits.shape, dtype=torch.bool)
            if self._allowed is None:
                refused[self._ends] = False
            else:
                refused[: len(self._allowed)] = self._allowed == 0
            return logits.masked_fill_(refused, float("-inf"))

    return GrammarFilter
