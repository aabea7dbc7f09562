"""Whatever servers answer, and whatever other machines say, doctor judges it and does not fall over it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.doctor.healthy import Lab

from hydra_infer import doctor
from hydra_infer.ops.asking import Answer
from hydra_infer.ops.commands import Ran
from hydra_infer.ops.doctor.answers import check_answers
from hydra_infer.ops.doctor.server import ServerFacts, Wanted

NAMES = {
    "tabby": ("info", "health", "permission", "admin", "model", "folders"),
    "ollama": ("info", "models", "loaded"),
    "litellm": ("info", "readiness", "models"),
    "openai": ("info", "models"),
}
WORDS = (
    "id parameters max_seq_len cache_size chunk_size prompt_template issues description data models name size size_vram".split()
)
WORDS += "context_length permission litellm_version version software detail".split()
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["TabbyAPI", "admin", "alive", "llama", "llama:latest"])
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5)
)
# Answers that look right at first, with anything inside.
ROWS = st.lists(JSON | st.fixed_dictionaries({"name": LEAVES, "id": LEAVES, "size": LEAVES, "size_vram": LEAVES}), max_size=3)
LIKELY = st.fixed_dictionaries({"id": LEAVES, "parameters": JSON, "issues": ROWS, "models": ROWS, "data": ROWS}) | JSON
SIGNS = {"tabby": {"software": {"name": "TabbyAPI"}}, "ollama": {"version": "1"}, "litellm": "I'm alive!", "openai": {"data": []}}
STATUSES = st.sampled_from([0, 200, 401, 404, 500, 503])


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(NAMES)), st.data())
def test_no_answer_is_too_odd(kind: str, data: st.DataObject) -> None:
    answers = {name: Answer(data.draw(STATUSES), data.draw(LIKELY), "trouble") for name in NAMES[kind]}
    answers["info"] = Answer(200, SIGNS[kind])
    facts = ServerFacts("s", kind, "http://s", answers, (Wanted("llama", "llama", 4096),), cards=True, has_admin_key=True)
    for finding in check_answers(facts):
        assert finding.severity == "unseen" or (finding.why and finding.mend)


@pytest.mark.parametrize(
    "out", ["", "no json", "7", "[]", "{}", '{"findings": [7]}', '{"findings": [{"what": 1}]}', "[" * 100_000]
)
def test_no_machine_is_too_odd(lab: Lab, out: str) -> None:
    lab.remote = Ran(0, out)
    report = doctor(lab.file(), machine=lab.machine())
    assert [(one.severity, one.where, one.what) for one in report] == [
        ("unseen", "far", "the machine itself: it answered nothing usable")
    ]
    assert json.loads(report.to_json())["healthy"]
