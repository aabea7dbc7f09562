"""Values changed in a YAML file, and nothing else; and what has changed, shown without secrets."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hydra_infer import ConfigError
from hydra_infer.configs.document import flow, parse
from hydra_infer.configs.edit import diff, edit
from hydra_infer.configs.secrets import HIDDEN, is_secret, masked

LONG = """\
# The server under the desk.  Ask Ana before you restart it.

network:            # who may come in
    host: 0.0.0.0   # every address
    port: 5000      # 5001 is the other one's

    # Keys are in api_tokens.yml.
    disable_auth: false

# ---------------------------------------------------------------
# The model. Measured on 3 May: 26 and 20 leave room to breathe.
# ---------------------------------------------------------------
model:
  model_dir: '/mnt/models'    # on the NAS: "nfs4, hard"
  model_name: "Llama-3.1-70B-EXL3-4.0bpw"   # 4.0, not 4.25
  # max_seq_len: 65536  (too much)
  max_seq_len: 32768
  cache_size:       # not said yet
  cache_mode: Q8    # see notes # 3
  gpu_split: [26.0, 20.0]   # GB, 5090 then 4090

  autosplit_reserve:
    - 1024
    - 512
  dummy_model_names: ["gpt-4#turbo", 'it''s']   # a # in quotes is none
  # end of model

draft_model:   # later
logging: {log_prompt: false, log_requests: false}  # quiet
notes: |
  # this is text
  and stays
# the end
"""


def plain(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_every_comment_stays_in_place() -> None:
    changed = edit(
        LONG,
        {
            "model.cache_size": 34816,
            "model.gpu_split": [27.5, 20],
            "model.model_name": "Qwen: 72B",
            "network.port": 5001,
            "model.max_batch_size": 4,
            "draft_model.draft_mode": "ngram",
            "logging.log_prompt": True,
            "memory.cuda_malloc_async": False,
        },
    )
    before, after = LONG.splitlines(), changed.splitlines()
    new = [line for line in after if line not in before]
    assert new == [
        "    port: 5001      # 5001 is the other one's",
        '  model_name: "Qwen: 72B"   # 4.0, not 4.25',
        "  cache_size: 34816       # not said yet",
        "  gpu_split: [27.5, 20]   # GB, 5090 then 4090",
        "  max_batch_size: 4",
        "  draft_mode: ngram",
        "logging: {log_prompt: true, log_requests: false}  # quiet",
        "memory:",
        "  cuda_malloc_async: false",
    ]
    assert len(after) == len(before) + 4
    assert [line for line in after if "#" in line and line not in new] == [
        line for line in before if "#" in line and line.split("#")[1] not in {one.split("#")[1] for one in new if "#" in one}
    ]
    assert changed.index("max_batch_size") < changed.index("# end of model") < changed.index("draft_mode")


def test_a_list_of_lines_becomes_one_line() -> None:
    assert edit(LONG, {"model.autosplit_reserve": [2048, 512]}) == LONG.replace(
        "autosplit_reserve:\n    - 1024\n    - 512\n", "autosplit_reserve: [2048, 512]\n"
    )
    assert edit(LONG, {("model", "autosplit_reserve", 1): 256}) == LONG.replace("    - 512\n", "    - 256\n")


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        ("", {"a.b": 1}, "a:\n  b: 1\n"),
        ("# only words\n", {"a": 1}, "# only words\na: 1\n"),
        ("a: 1", {"b": 2}, "a: 1\nb: 2\n"),
        ("a: 1\r\nb: 2\r\n", {"a": 3, "c": 4}, "a: 3\r\nb: 2\r\nc: 4\r\n"),
        ("a: {}\n", {"a.b": 1}, "a: {b: 1}\n"),
        ("a: {b: 1}\n", {"a.c.d": 2}, "a: {b: 1, c: {d: 2}}\n"),
        ("a:\n", {"a.b.c": 1}, "a:\n  b:\n    c: 1\n"),
        ("a:\n    b:\n        c: 1\n", {"a.b.d": 2, "a.e": 3}, "a:\n    b:\n        c: 1\n        d: 2\n    e: 3\n"),
        ("a: 5  # five\n", {"a": None}, "a:   # five\n"),
        ("a: 5\n", {"b.c": None}, "a: 5\n"),
        ("rows:\n  - {n: 1}\n  - n: 2\n    m: 3\n", {"rows.1.n": 4}, "rows:\n  - {n: 1}\n  - n: 4\n    m: 3\n"),
        ('"a b": "x"\n', {("a b",): "y z"}, '"a b": "y z"\n'),
        ("a.b: 1\n", {("a.b",): 2}, "a.b: 2\n"),
        ("a: 1\nb: |\n  text\n", {"c": 2}, "a: 1\nb: |\n  text\nc: 2\n"),
    ],
)
def test_small_cases(text: str, changes: dict[Any, Any], expected: str) -> None:
    assert edit(text, changes) == expected


@pytest.mark.parametrize(
    ("text", "changes", "why"),
    [
        ("a:\n  - 1  # one\n  - 2\n", {"a": [3]}, "without touching something else"),
        ("a: &x 1\nb: *x\n", {"a": 2}, "without touching something else"),
        ("a:\n  b: 1\n", {"a": 2}, "is a table"),
        ("a: 1\n", {"a.b": 2}, "there is no b to change"),
        ("a: [1\n", {"a": 2}, "is not usable YAML"),
        ("a: 1\n---\nb: 2\n", {"a": 2}, "is not usable YAML"),
        ("a: &a [*a]\n", {"b": 2}, "its aliases lead back to themselves"),
        (
            "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghijklm")),
            {"a": 2},
            "or to more than 100000 values",
        ),
    ],
)
def test_what_would_touch_something_else_is_refused(text: str, changes: dict[Any, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        edit(text, changes, where="config.yml")


NAMES = st.sampled_from(["host", "port", "cache_size", "gpu_split", "model.name", "on", "7", "é b"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
PLAIN = SCALARS | st.lists(SCALARS, max_size=3)
COMMENT = st.sampled_from(["", "  # why", " # a: 1", "    #"])


def written(value: Any) -> st.SearchStrategy[str]:
    return st.just(f" {flow(value)}") if value is not None else st.sampled_from(["", " null", " ~"])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[str, dict[str, Any]]]:
    """Two levels of tables with comments everywhere, and what they hold."""
    lines, tree = ["# head"], {}
    for section in draw(st.lists(NAMES, unique=True, min_size=1, max_size=3)):
        indent = " " * draw(st.integers(1, 5))
        lines += [f"{flow(section)}:{draw(COMMENT)}"]
        tree[section] = {}
        for name in draw(st.lists(NAMES, unique=True, min_size=1, max_size=4)):
            value = draw(PLAIN)
            tree[section][name] = value
            lines += [f"{indent}# before {len(lines)}", f"{indent}{flow(name)}:{draw(written(value))}{draw(COMMENT)}", ""]
        lines += [f"# after {len(lines)}"]
    return draw(st.sampled_from(["\n", "\r\n"])).join([*lines, ""]), tree


@settings(deadline=None)
@given(document=documents(), section=NAMES, name=NAMES, value=PLAIN)
def test_any_value_anywhere(document: Any, section: str, name: str, value: Any) -> None:
    text, tree = document
    changed = edit(text, {(section, name): value})
    expected = {key: dict(values) for key, values in tree.items()}
    if value is not None or name in tree.get(section, {}):
        expected.setdefault(section, {})[name] = value
    assert plain(changed) == expected
    assert re.findall(r"# (?:before|after|head).*", changed) == re.findall(r"# (?:before|after|head).*", text)
    kept = [line for line in text.splitlines() if line in changed.splitlines()]
    assert len(kept) >= len(text.splitlines()) - 1  # one line at most is another now


@settings(deadline=None)
@given(PLAIN | st.dictionaries(st.text(max_size=5), PLAIN, max_size=3))
def test_values_in_one_line_read_the_same(value: Any) -> None:
    written = flow(value)
    assert "\n" not in written
    assert plain(f"a: {written}\n") == {"a": value}


@pytest.mark.parametrize(
    "word", ["yes", "No", "on", "null", "~", "1e-7", "0x10", "1:30", "2020-01-01", "", "- a", "#", "a: b", "y"]
)
def test_words_that_look_like_something_else_are_quoted(word: str) -> None:
    assert flow(word).startswith('"')


def test_numbers_have_the_point_that_old_readers_want() -> None:
    assert (flow(1e-07), flow(2.5), flow(1e22)) == ("1.0e-07", "2.5", "1.0e+22")
    with pytest.raises(ConfigError, match="has no form in YAML"):
        flow(float("nan"))


def test_the_parser_names_file_and_line_and_shows_no_value() -> None:
    with pytest.raises(ConfigError, match=r"config.yml:2 is not usable YAML: found duplicate key") as caught:
        parse("api_key: sk-1\napi_key: sk-2\n", "config.yml")
    assert "sk-" not in str(caught.value)


# ---- diffs -------------------------------------------------------------------------------------------------------


def test_a_diff_is_unified_and_empty_without_a_change() -> None:
    assert diff(LONG, LONG) == ""
    assert diff("a: 1", "a: 1\n").splitlines()[3:] == [" a: 1", "-\\ No newline at the end"]
    assert diff("a: 1\nb: 2\n", "a: 1\nb: 3\n", name="config.yml").splitlines()[:5] == [
        "--- config.yml",
        "+++ config.yml",
        "@@ -1,2 +1,2 @@",
        " a: 1",
        "-b: 2",
    ]


SECRETS = """\
api_key: PLANTED-1
admin_key: "PLANTED-2"  # PLANTED is the word
# api_key: PLANTED-3
list:
  api_key:
    - PLANTED-4
    - 'PLANTED-5'
  text: {token: PLANTED-6, url: "https://me:PLANTED-7@host/x"}
  password: |
    PLANTED-8
    PLANTED-9
  master_key: os.environ/LITELLM_MASTER_KEY
  key: {env: TABBY_KEY}
  secret: {literal: PLANTED-10}
max_tokens: 5
reasoning_start_token: <think>
"""
ENVIRONMENT = '[Service]\nEnvironment="API_KEY=PLANTED-11"\nEnvironment=HF_TOKEN=PLANTED-12\nExecStart=/bin/x\nOLLAMA_HOST=a\n'


def test_secrets_are_hidden_and_the_rest_is_not() -> None:
    for text in (SECRETS, ENVIRONMENT, SECRETS + "broken: [\n", SECRETS.replace("\n", "\r\n")):
        shown = masked(text)
        assert "PLANTED-" not in shown
        assert shown.count("\n") == text.count("\n")
    for kept in ("os.environ/LITELLM_MASTER_KEY", "TABBY_KEY", "max_tokens: 5", "<think>", "ExecStart=/bin/x", "OLLAMA_HOST=a"):
        assert kept in masked(SECRETS) + masked(ENVIRONMENT)


def test_a_diff_shows_that_a_key_changed_and_not_what_it_is() -> None:
    shown = diff(SECRETS, SECRETS.replace("PLANTED-1\n", "OTHER-1\n").replace("PLANTED-4", "OTHER-4"))
    assert "PLANTED-" not in shown
    assert "OTHER" not in shown
    assert f"-api_key: {HIDDEN}\n+api_key: {HIDDEN}\n" in shown


@pytest.mark.parametrize(
    "name", ["api_key", "admin_key", "OPENAI_API_KEY", "LITELLM_KEY", "hf-token", "password", "apikey", "keys"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["max_tokens", "tokens", "reasoning_start_token", "input_cost_per_token", "monkey", "key_file"])
def test_names_of_other_things(name: str) -> None:
    assert not is_secret(name)


@settings(deadline=None)
@given(st.text(alphabet="abkey_: \n-#'\"{}[]|&*!\x85\u2028", max_size=60), st.text(alphabet="ab: \n-#\u2028", max_size=60))
def test_any_two_texts_have_a_diff(old: str, new: str) -> None:
    assert (diff(old, new) == "") == (old == new)
