"""The plan of a run: the same for the same seed, pairs side by side, every prompt new."""

from __future__ import annotations

import pytest
from ops.bench.made_up import SETUP, shorter

from hydra_infer.errors import ConfigError
from hydra_infer.ops.bench.prompts import KINDS, prompt
from hydra_infer.ops.bench.steps import Setup, steps


def test_the_same_seed_has_the_same_steps_and_another_another_order() -> None:
    assert steps(SETUP) == steps(shorter())
    other = steps(shorter(seed=2))
    assert other != steps(SETUP)
    assert {step.key for step in other} == {step.key for step in steps(SETUP)}


def test_both_sides_of_a_pair_follow_each_other_and_either_comes_first() -> None:
    order = steps(SETUP)
    assert len(order) == len({step.key for step in order}) == 5 * 10 * 2
    pairs = list(zip(order[::2], order[1::2], strict=True))
    for first, second in pairs:
        assert {first.side, second.side} == {"a", "b"}
        assert (first.name, first.parallel, first.repetition) == (second.name, second.parallel, second.repetition)
    assert 10 < sum(first.side == "a" for first, _ in pairs) < 40


def test_every_kind_alone_and_the_first_at_once() -> None:
    assert SETUP.cells == (("chat", 1), ("code", 1), ("long", 1), ("chat", 4), ("chat", 16))
    assert shorter(kinds=("code",), parallel=(8,)).cells == (("code", 1), ("code", 8))


def test_no_prompt_begins_as_another_and_both_sides_read_as_much() -> None:
    seen = set()
    for kind in KINDS:
        for repetition in range(-1, 12):
            for parallel, stream in ((1, 0), (4, 0), (4, 3)):
                texts = [
                    prompt(kind, side, seed=1, parallel=parallel, repetition=repetition, stream=stream, long_tokens=500)
                    for side in "ab"
                ]
                assert len(texts[0]) == len(texts[1])
                assert texts[0][15:] == texts[1][15:]
                seen |= {text[:16] for text in texts}
    assert len(seen) == 3 * 13 * 3 * 2
    text = prompt("long", "a", seed=1, parallel=1, repetition=0, stream=0, long_tokens=2000)
    assert 8000 < len(text) < 8400
    assert text == prompt("long", "a", seed=1, parallel=1, repetition=0, stream=0, long_tokens=2000)


def test_a_setup_survives_plain_data() -> None:
    assert Setup.from_dict(SETUP.to_dict()) == SETUP
    with pytest.raises(ConfigError, match="seed"):
        Setup.from_dict({key: value for key, value in SETUP.to_dict().items() if key != "seed"})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kinds": ("chatt",)}, "chatt"),
        ({"kinds": ()}, "kinds"),
        ({"parallel": (0,)}, "parallel"),
        ({"repetitions": 0}, "repetitions"),
        ({"max_tokens": True}, "max_tokens"),
    ],
)
def test_what_cannot_be_is_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        shorter(**change)
