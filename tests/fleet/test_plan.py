"""What a fleet's plan says of one machine: who fits, who stays beside whom, who is sent away, and what is not planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import synthetic

from hydra_infer import Fleet, Gpu
from hydra_infer.fleet.report import FleetPlan, Row
from hydra_infer.units import GIB, Size

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
EIGHT = f"{{config: {CONFIGS / 'Llama-3.1-8B.json'}, bpw: 4.9}}"
FOURTEEN = f"{{config: {CONFIGS / 'Qwen2.5-14B.json'}, bpw: 4.9}}"


def planned(tmp_path: Path, host: str, **servers: str) -> FleetPlan:
    """The plan of one machine; servers are given as the fields after their host."""
    lines = [f"hosts: {{box: {host}}}", "servers:"]
    for name, fields in servers.items():
        kind = "tabby" if name.startswith("tabby") else "ollama"
        lines.append(f"  {name}: {{kind: {kind}, url: 'http://box', host: box, {fields}}}")
    path = tmp_path / "hydra.yaml"
    path.write_text("\n".join(lines))
    return Fleet.from_file(path).plan()


def row(plan: FleetPlan, model: str) -> Row:
    return next(row for row in plan.rows if row.model == model)


def together(plan: FleetPlan) -> list[list[str]]:
    return [[model for _, model in group] for group in plan.hosts[0].together]


def test_tabbyapi_holds_one_model_however_small(tmp_path: Path) -> None:
    plan = planned(tmp_path, "{cards: [RTX 5090]}", tabby=f"models: {{a: {EIGHT}, b: {EIGHT}}}")
    assert together(plan) == [["a"], ["b"]]
    assert (row(plan, "a").evicts, row(plan, "b").evicts) == (("b",), ("a",))


def test_ollama_holds_as_many_as_fit_and_three_a_card_at_most(tmp_path: Path) -> None:
    models = ", ".join(f"m{number}: {{takes: 0.5}}" for number in range(4))
    plan = planned(tmp_path, "{cards: [RTX 5090]}", ollama=f"models: {{{models}}}")
    assert together(plan) == [["m0", "m1", "m2"], ["m3", "m0", "m1"]]
    assert row(plan, "m3").evicts == ()  # beside any one of them there is room


def test_ollama_keeps_the_context_for_every_request_at_once(tmp_path: Path) -> None:
    one, four = (
        planned(tmp_path, "{cards: [RTX 5090]}", ollama=f"max_parallel: {count}, models: {{a: {EIGHT}}}").rows[0].plan
        for count in (1, 4)
    )
    assert one is not None
    assert four is not None
    assert four.devices[0].cache == 4 * one.devices[0].cache


def test_ollama_lets_a_further_model_in_only_with_a_fifth_to_spare(tmp_path: Path) -> None:
    """16 GiB less 0.6 for the driver: 15.4 free. Beside 5, 80 % of 10.4 is 8.32; the smaller one finds room after the larger."""
    for takes, evicts in ((8.3, ()), (8.4, ("a",))):
        models = f"models: {{a: {{takes: 5}}, b: {{takes: {takes}}}}}"
        plan = planned(tmp_path, "{cards: [{name: mine, memory: 16}]}", ollama=models)
        assert (row(plan, "a").evicts, row(plan, "b").evicts) == ((), evicts)
        assert together(plan) == ([["a"], ["b", "a"]] if evicts else [["a", "b"]])
    alone = planned(tmp_path, "{cards: [{name: mine, memory: 16}]}", ollama="models: {a: {takes: 15}}")
    assert row(alone, "a").fits is True


def test_a_planned_model_beside_others_is_planned_on_what_they_leave(tmp_path: Path) -> None:
    plan = planned(tmp_path, "{cards: [RTX 5070 Ti]}", ollama=f"models: {{a: {EIGHT}, b: {FOURTEEN}, c: {{takes: 0.5}}}}")
    assert together(plan) == [["a", "c"], ["b", "c"]]
    two_cards = planned(tmp_path, "{cards: [RTX 5070 Ti, RTX 5070 Ti]}", ollama=f"models: {{a: {EIGHT}, b: {FOURTEEN}}}")
    assert together(two_cards) == [["a", "b"]]


def test_two_servers_on_the_same_cards_do_not_make_room_for_each_other(tmp_path: Path) -> None:
    cards, small = "{cards: [RTX 5090, RTX 4090], ram: 64}", f"models: {{small: {EIGHT}}}"
    for bpw, beside in ((4.0, True), (5.5, False)):
        big = f"models: {{big: {{config: {CONFIGS / 'Llama-3.1-70B.json'}, bpw: {bpw}}}}}"
        plan = planned(tmp_path, cards, tabby=big, ollama=small)
        assert together(plan) == ([["big", "small"]] if beside else [["big"], ["small"]])
        assert row(plan, "big").not_beside == (() if beside else (("ollama", "small"),))
        assert row(plan, "small").not_beside == (() if beside else (("tabby", "big"),))
        assert (row(plan, "big").evicts, row(plan, "small").evicts) == ((), ())
    assert "not beside ollama/small" in str(plan)


def test_a_server_with_some_of_the_cards_is_planned_on_those(tmp_path: Path) -> None:
    plan = planned(tmp_path, "{cards: [RTX 5090, RTX 3060]}", tabby=f"use_cards: [1], models: {{a: {EIGHT}}}").rows[0].plan
    assert plan is not None
    assert [use.gpu.name for use in plan.devices] == ["RTX 3060 12GB"]


def test_a_machine_without_cards_computes_in_its_own_system_ram(tmp_path: Path) -> None:
    plan = planned(tmp_path, "{cards: [], ram: 10}", ollama=f"models: {{a: {EIGHT}, b: {EIGHT}, c: {{takes: 11}}}}")
    assert together(plan) == [["a"], ["b"]]
    assert (row(plan, "a").fits, row(plan, "c").fits) == (True, False)
    assert row(plan, "a").plan.host_use.available == 10 * GIB  # type: ignore[union-attr]
    unknown = planned(tmp_path, "{cards: []}", ollama=f"models: {{a: {EIGHT}}}")
    assert unknown.rows[0].plan.host_use.available is None  # type: ignore[union-attr] # not this machine's


def test_this_machine_is_asked_and_counted_as_if_nothing_ran_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def gpus(empty: bool = False) -> list[Gpu]:
        asked.append(empty)
        return [Gpu("RTX 4090", index=0, uuid="GPU-1")]

    monkeypatch.setattr("hydra_infer.hardware.nvml.gpus", gpus)
    plan = planned(tmp_path, "{cards: this machine}", tabby=f"models: {{a: {EIGHT}}}")
    assert (asked, plan.hosts[0].cards[0].uuid, row(plan, "a").fits) == ([True], "GPU-1", True)
    assert plan.hosts[0].ram is not None
    lacking = planned(tmp_path, "{cards: this machine}", tabby=f"use_cards: [1], models: {{a: {EIGHT}, b: {{takes: 1}}}}")
    assert ["there is no card 1 on box" in (row.error or "") for row in lacking.rows] == [True, True]


def test_files_that_are_here_are_read_and_else_the_config_json(tmp_path: Path) -> None:
    synthetic.exl3(tmp_path / "models" / "Llama-EXL3", synthetic.LLAMA_1B, 4.0)
    here = "model_dir: models, models: {a: {name: Llama-EXL3}}"
    plan = planned(tmp_path, "{cards: [RTX 4090]}", tabby=here).rows[0].plan
    assert plan is not None
    assert plan.request.spec.tensors
    imagined = (
        f"model_dir: /srv/models, models: {{a: {{name: Elsewhere-EXL3, config: {CONFIGS / 'Llama-3.1-8B.json'}, bpw: 4.0}}}}"
    )
    plan = planned(tmp_path, "{cards: [RTX 4090]}", tabby=imagined).rows[0].plan
    assert plan is not None
    assert (plan.request.spec.name, plan.request.spec.path) == ("Elsewhere-EXL3", Path("/srv/models/Elsewhere-EXL3"))


NOT_PLANNED = {
    "no files": ("{cards: [RTX 4090]}", "models: [a]", "the files of a are not here"),
    "no cards told": ("{}", "models: [a]", "no host whose cards are named"),
    "no such card": ("{cards: [RTX 4090]}", "models: {a: {config: nowhere.json, bpw: 4.0}}", "nowhere.json"),
}


@pytest.mark.parametrize("case", NOT_PLANNED)
def test_what_cannot_be_planned_is_a_row_that_says_why(tmp_path: Path, case: str) -> None:
    host, fields, why = NOT_PLANNED[case]
    plan = planned(tmp_path, host, tabby=fields)
    only = plan.rows[0]
    assert (only.fits, only.plan, only.needed, plan.fits) == (None, None, None, True)
    assert why in (only.error or "")
    assert why in str(plan)


def test_a_server_that_is_asked_for_its_models_is_told_apart(tmp_path: Path) -> None:
    plan = planned(tmp_path, "{cards: [RTX 4090]}", ollama="max_parallel: 2")
    assert (plan.rows, plan.unlisted) == ((), ("ollama",))
    assert "ollama: asked for its models" in str(plan)


def test_what_does_not_fit_is_no_and_in_no_group(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "{cards: [RTX 3060]}",
        tabby=f"models: {{a: {EIGHT}, b: {{config: {CONFIGS / 'Llama-3.1-70B.json'}, bpw: 4.0}}}}",
    )
    assert (plan.fits, row(plan, "b").fits, together(plan)) == (False, False, [["a"]])
    assert "RTX 3060" in str(plan).split("\n")[2]


def test_the_plan_as_data(tmp_path: Path) -> None:
    plan = planned(tmp_path, "{cards: [RTX 5070 Ti], ram: 28}", ollama=f"models: {{a: {EIGHT}, c: {{takes: 0.5}}, d: {{}}}}")
    data: dict[str, Any] = json.loads(plan.to_json())
    first, second, third = data["models"]
    assert first["plan"]["fits"] is True
    assert first["needed_bytes"] == sum(device["needed_bytes"] for device in first["plan"]["devices"])
    assert (second["plan"], second["needed_bytes"]) == (None, int(Size(GIB // 2)))
    assert (third["fits"], "not here" in third["error"]) == (None, True)
    assert data["hosts"][0]["together"] == [["ollama/a", "ollama/c"]]
    assert repr(plan) == "<FleetPlan of 3 models, 2 fit>"
