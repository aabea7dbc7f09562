"""A keyword that a signature lacks is an error, even where the function would swallow it."""

from __future__ import annotations

from typing import Any

import pytest

from hydra_infer.engines.exllama.signature import call, names
from hydra_infer.errors import ConfigError


class Greedy:
    def __init__(self, model: str, max_batch_size: int = 1, **kwargs: Any) -> None:
        self.given = (model, max_batch_size, kwargs)


def test_named_arguments_pass() -> None:
    assert call(Greedy, model="m", max_batch_size=2).given == ("m", 2, {})
    assert names(Greedy) == {"model", "max_batch_size"}


def test_a_mistyped_one_is_named() -> None:
    with pytest.raises(ConfigError, match="Greedy has no argument max_batchsize, zzz"):
        call(Greedy, model="m", max_batchsize=2, zzz=1)
