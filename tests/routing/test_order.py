"""The order of candidates on what servers told: loaded or cold, large enough or not; and what is read of an overflow."""

from __future__ import annotations

from typing import Any

from hydra_infer.routing.backend import Backend
from hydra_infer.routing.explain import explain
from hydra_infer.routing.order import in_order
from hydra_infer.routing.pool import MODELS_TTL, Pool
from hydra_infer.routing.strategies import Ask, find_strategy
from hydra_infer.wire.dialect import Look
from hydra_infer.wire.fields import estimated_tokens
from hydra_infer.wire.trouble import Failure, Trouble

NOW = [1000.0]


def pool_of(*rows: Backend) -> Pool:
    return Pool(rows, cooldown=30.0, clock=lambda: NOW[0])


def names(pool: Pool, strategy: str = "ordered", **fields: Any) -> list[str]:
    return [
        place.backend.name for place, _ in in_order(pool.serving("m"), Ask(fields, "m", lambda _: True), find_strategy(strategy))
    ]


def ollama(name: str, **options: Any) -> Backend:
    return Backend.ollama(name, ["m"], name=name, **options)


def text(tokens: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "a" * 4 * tokens}]}


def test_a_cold_server_is_asked_last_except_in_a_written_order_and_told_so() -> None:
    pool = pool_of(ollama("cold"), ollama("unknown"), ollama("warm"))
    pool.tell(pool.places[0].backend, Look(["m"], {}))
    pool.tell(pool.places[2].backend, Look(["m"], {"m": 4096}))
    assert names(pool) == ["cold", "unknown", "warm"]
    assert names(pool, "least-busy") == ["unknown", "warm", "cold"]
    told = explain(["m"], {}, frozenset(), pool, find_strategy("least-busy"), "least-busy")
    assert [option.why for option in told.options] == [
        "first choice",
        "if those before fail; loaded there",
        "if those before fail; not loaded there now",
    ]
    pool.tell_loaded(pool.places[0].backend, {"m": 4096})
    assert names(pool, "least-busy") == ["cold", "unknown", "warm"]


def test_behind_one_that_rests_comes_the_first_choice() -> None:
    pool = pool_of(ollama("rests"), ollama("stands"))
    [resting, _] = pool.serving("m")
    pool.failed(*resting, Failure(Trouble.UNREACHABLE, "switched off"), rest=True)
    told = explain(["m"], {}, frozenset(), pool, find_strategy("ordered"), "ordered")
    assert [(option.asked, option.why) for option in told.options] == [
        (False, "resting 30 s more: switched off"),
        (True, "first choice"),
    ]


def test_a_server_that_is_asked_last_is_looked_at_again_all_the_same() -> None:
    pool = pool_of(ollama("a"), ollama("never-asked"))
    pool.tell(pool.places[0].backend, Look(["m"], {}))
    assert pool.stale() == []
    NOW[0] += MODELS_TTL + 1
    assert [row.name for row in pool.stale()] == ["a"]


def test_those_too_small_for_the_estimated_prompt_are_asked_last() -> None:
    pool = pool_of(
        ollama("small", context=4096), Backend.openai("open", models=["m"], name="open"), ollama("large", context=32768)
    )
    assert names(pool, **text(4000)) == ["small", "open", "large"]
    assert names(pool, **text(5000)) == ["open", "large", "small"]
    told = explain(["m"], text(5000), frozenset(), pool, find_strategy("ordered"), "ordered")
    assert told.options[-1].why == "if those before fail; about 5001 tokens are more than its context of 4096"
    assert told.options[-1].asked  # an estimate refuses nobody


def test_a_context_that_the_server_told_counts() -> None:
    pool = pool_of(Backend.tabby("t", ["m"], name="t"), ollama("large", context=32768))
    pool.tell(pool.places[0].backend, Look(["m"], {"m": 2048}))
    assert names(pool, **text(5000)) == ["large", "t"]


def test_the_estimate_counts_text_and_tools_and_no_pictures() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}}
    assert estimated_tokens({"messages": [{"role": "user", "content": [{"type": "text", "text": "a" * 40}, picture]}]}) < 20
    assert estimated_tokens({"prompt": "a" * 400, "tools": [{"description": "b" * 400}]}) == 200
    assert estimated_tokens({}) == 0
