"""switch: the new model answers or the old one is back, whatever fails and whenever the process is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import synthetic
from servers.ollama import OllamaServer, Tag
from servers.tabby import ADMIN_KEY, API_KEY, Folder, TabbyServer

from hydra_infer import Fleet, Gpu, doctor
from hydra_infer.cli import main
from hydra_infer.errors import ConfigError, DoesNotFit, LoadError
from hydra_infer.ops.journal import Journal, beside, find, replay
from hydra_infer.ops.switch import settle, switch, unsettled

pytestmark = pytest.mark.usefixtures("no_leaks")

OLD, NEW, THIRD = "old-model", "new-model", "third-model"


class Box:
    """A fleet of one TabbyAPI and one Ollama."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.tabby = stack.enter_context(TabbyServer({OLD: Folder(), NEW: Folder(), THIRD: Folder()}))
        self.ollama = stack.enter_context(OllamaServer({"a:1b": Tag(), "b:1b": Tag(), "e:1b": Tag(capabilities=("embedding",))}))
        self.hold(OLD, max_seq_len=2048, cache_size=3840, cache_mode="8,8")
        self.path = folder / "hydra.yaml"
        self.path.write_text(
            f"""
            servers:
              tabby: {{kind: tabby, url: '{self.tabby.url}', api_key: {{env: BOX_KEY}}, admin_key: {{env: BOX_ADMIN}},
                       models: {{old: {OLD}, new: {{name: {NEW}, context: 4096, aliases: [gpt-4]}}, third: {THIRD}}}}}
              ollama: {{kind: ollama, url: '{self.ollama.url}',
                        models: {{a: 'a:1b', b: {{name: 'b:1b', context: 4096}}, e: {{name: 'e:1b', embeds: true}}}}}}
            """
        )

    def hold(self, name: str, **settings: object) -> None:
        self.tabby._card = self.tabby._card_for(name, dict(settings))

    @property
    def outcomes(self) -> list[str | None]:
        return [job.outcome for job in replay(beside(self.path).read_bytes())]

    def old_is_back(self) -> bool:
        card = self.tabby._card
        return card is not None and (card.name, card.context, card.cache_size, card.cache_mode) == (OLD, 2048, 3840, "8,8")


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    monkeypatch.setenv("BOX_KEY", API_KEY)
    monkeypatch.setenv("BOX_ADMIN", ADMIN_KEY)
    with ExitStack() as stack:
        yield Box(tmp_path, stack)


def test_the_new_model_is_loaded_and_proven(box: Box) -> None:
    done = switch(box.path, "gpt-4")
    assert (done.outcome, done.server, done.model, done.before) == ("done", "tabby", "new", (OLD,))
    assert box.tabby.loaded == NEW
    assert box.tabby.paths[-1] != "/v1/model/load"
    assert "/v1/chat/completions" in box.tabby.paths, "the canary"
    assert box.outcomes == ["done"]
    assert str(done) == f"tabby serves new (before: {OLD})"


def test_nothing_is_unloaded_before_the_journal_says_so(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="cannot be written: No space left"):
        switch(box.path, "new")
    assert box.tabby.loads == []
    assert box.old_is_back()


def test_a_load_that_fails_brings_the_old_one_back(box: Box) -> None:
    box.tabby.folders[NEW] = Folder(fails="Insufficient VRAM in split for model and cache", fails_at=3)
    with pytest.raises(LoadError, match=f"tabby has {OLD} again, not new: .*Insufficient VRAM"):
        switch(box.path, "new")
    assert box.old_is_back()
    assert box.outcomes == ["undone"]
    assert unsettled(box.path) is None


def test_a_model_that_loads_and_does_not_answer_gives_way_to_the_old_one(box: Box) -> None:
    box.tabby.folders[NEW] = Folder(template=False)
    with pytest.raises(LoadError, match=f"tabby has {OLD} again, not new"):
        switch(box.path, "new")
    assert box.old_is_back()


def test_where_the_old_one_cannot_be_put_back_the_job_stays_open(box: Box) -> None:
    box.tabby.folders[NEW] = box.tabby.folders[OLD] = Folder(fails="out of memory")
    with pytest.raises(LoadError, match="could not be put back: .* tries again"):
        switch(box.path, "new")
    assert unsettled(box.path) is not None
    box.tabby.folders[OLD] = Folder()
    back = settle(box.path, undo=True)
    assert back is not None
    assert back.outcome == "undone"
    assert box.old_is_back()


def test_where_nothing_was_loaded_nothing_is_left(box: Box) -> None:
    box.tabby._card = None
    box.tabby.folders[NEW] = Folder(template=False)
    with pytest.raises(LoadError, match="tabby has no model again"):
        switch(box.path, "new")
    assert box.tabby.loaded is None


def too_large(box: Box, tmp_path: Path) -> None:
    """From now on the fleet file says where the models are, and on which card: the new one does not fit there."""
    (tmp_path / "models").mkdir()
    synthetic.exl3(tmp_path / "models" / NEW, synthetic.LLAMA_70B, 4.0)
    text = box.path.read_text().replace("kind: tabby,", "kind: tabby, host: box, model_dir: models,")
    box.path.write_text(f"hosts: {{box: {{cards: [RTX 3060]}}}}\n{text.replace('            ', '')}")


def test_what_does_not_fit_changes_nothing(box: Box, tmp_path: Path) -> None:
    too_large(box, tmp_path)
    with pytest.raises(DoesNotFit):
        switch(box.path, "new")
    assert box.tabby.loads == []
    assert not beside(box.path).exists()


def test_what_the_fleets_own_plan_refuses_is_not_even_asked_for(box: Box) -> None:
    """Its files are on another machine: its config.json says what it takes."""
    config = Path(__file__).parents[1] / "data" / "configs" / "Llama-3.1-70B.json"
    model = f"{{name: {NEW}, context: 8192, config: {config}, bpw: 4.0}}"
    text = box.path.read_text().replace("kind: tabby,", "kind: tabby, host: box,").replace("third: " + THIRD, f"third: {model}")
    box.path.write_text(f"hosts: {{box: {{cards: [RTX 5090, RTX 4090]}}}}\n{text.replace('            ', '')}")
    with pytest.raises(DoesNotFit, match="RTX 4090"):
        switch(box.path, "third", context="128k")
    assert main(["load", "third", "--fleet", str(box.path), "--context", "128k"]) == 1
    assert (box.tabby.requests, box.tabby.loads) == ([], [])
    assert switch(box.path, "third").outcome == "done", "with the file's own context it fits"
    assert switch(box.path, "third", context="128k", force=True).outcome == "done"


def test_what_does_not_fit_into_what_is_there_is_refused_in_the_journal(box: Box, tmp_path: Path) -> None:
    """The file's plan has no fault to find, and the model's own files have."""
    (tmp_path / "models").mkdir()
    synthetic.exl3(tmp_path / "models" / NEW, synthetic.LLAMA_70B, 4.0)
    fleet = Fleet.from_file(box.path)
    backends = [replace(row, gpus=(Gpu("RTX 3060"),), model_dir=str(tmp_path / "models")) for row in fleet.settings()["backends"]]
    fleet.settings = lambda: {**Fleet.settings(fleet), "backends": backends}  # type: ignore[method-assign]
    with pytest.raises(DoesNotFit):
        switch(fleet, "new")
    assert box.tabby.loads == []
    assert box.outcomes == ["refused"]


def test_each_line_is_on_the_disk_before_the_server_is_told(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file and its folder are synchronised, and only then is anything asked for that changes the server."""
    order: list[str] = []
    fsync, answer = os.fsync, box.tabby.answer

    def synchronised(handle: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "line")
        fsync(handle)

    def answered(asked: Any) -> Any:
        order.append(asked.path)
        return answer(asked)

    monkeypatch.setattr("os.fsync", synchronised)
    box.tabby.answer = answered  # type: ignore[method-assign]
    switch(box.path, "new")
    before = order[: order.index("/v1/model/load")]
    assert [one for one in before if not one.startswith("/")] == ["folder", "line", "line"], "the switch, and its step"
    assert not [one for one in before if "load" in one]
    checked = order[order.index("/v1/model/load") :]
    assert checked.index("line") < checked.index("/v1/chat/completions")


def test_ollama_keeps_what_it_can_and_gets_back_what_it_lost(box: Box) -> None:
    assert switch(box.path, "a").outcome == "done"
    assert switch(box.path, "e").outcome == "done", "its canary is a vector"
    assert switch(box.path, "b").outcome == "done"
    assert set(box.ollama.loaded) == {"a:1b", "b:1b", "e:1b"}
    box.ollama.tags["b:1b"] = Tag(fails="llama runner process has terminated")
    box.ollama._runners.clear()
    with pytest.raises(LoadError, match="llama runner process has terminated"):
        switch(box.path, "b")


def test_a_model_that_nobody_lists(box: Box) -> None:
    with pytest.raises(ConfigError, match="no TabbyAPI and no Ollama of the fleet lists 'x'.*there are a, b, e, new, old, third"):
        switch(box.path, "x")
    with pytest.raises(ConfigError, match="ollama does not list 'new'"):
        switch(box.path, "new", backend="ollama")
    assert not beside(box.path).exists()


# ---- killed half-way -----------------------------------------------------------------------------------------


def kill(box: Box, when: Callable[[], bool]) -> None:
    """Start a switch to the new model in a process of its own, and SIGKILL that once it has come so far."""
    command = [sys.executable, "-m", "hydra_infer", "switch", "new", "--fleet", str(box.path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        ends_at = time.monotonic() + 30
        while not when():
            assert child.poll() is None, "it ended before it came so far"
            assert time.monotonic() < ends_at
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)


def begun(box: Box, step: str) -> bool:
    jobs = replay(beside(box.path).read_bytes()) if beside(box.path).exists() else ()
    return bool(jobs) and step in jobs[-1].begun


def in_load(box: Box) -> None:
    box.tabby.folders[NEW] = Folder(seconds=1.5)
    kill(box, lambda: bool(box.tabby.loads))
    assert box.tabby.loaded is None


def in_verify(box: Box) -> None:
    mind = box.tabby.mind

    def slow(*args: object, **more: object) -> object:
        time.sleep(1.0)
        return mind(*args, **more)  # type: ignore[arg-type]

    box.tabby.mind = slow  # type: ignore[assignment]
    kill(box, lambda: begun(box, "verify"))
    box.tabby.mind = mind
    assert box.tabby.loaded == NEW


KILLS = pytest.mark.parametrize("killed", [in_load, in_verify])


@KILLS
def test_status_and_doctor_tell_of_a_killed_switch(
    box: Box, killed: Callable[[Box], None], capsys: pytest.CaptureFixture[str]
) -> None:
    killed(box)
    told = f"the switch to new on tabby of .* was interrupted at '{killed.__name__.removeprefix('in_')}'"
    assert main(["status", "--fleet", str(box.path)]) == 1
    assert any(re.search(told, line) for line in capsys.readouterr().err.splitlines())
    assert [one.severity for one in doctor(box.path) if re.search(told, one.what)] == ["error"]
    assert find(beside(box.path)) is not None, "looking settles nothing"


@KILLS
def test_a_killed_switch_is_finished(box: Box, killed: Callable[[Box], None], capsys: pytest.CaptureFixture[str]) -> None:
    killed(box)
    assert main(["switch", "--fleet", str(box.path), "--resume"]) == 0
    assert capsys.readouterr().out == f"tabby serves new (before: {OLD})\n"
    assert box.tabby.loaded == NEW
    assert box.outcomes == ["done"]
    assert main(["switch", "--fleet", str(box.path), "--resume"]) == 0
    assert "was interrupted" in capsys.readouterr().out


@KILLS
def test_a_killed_switch_is_undone(box: Box, killed: Callable[[Box], None]) -> None:
    killed(box)
    assert main(["switch", "--fleet", str(box.path), "--undo"]) == 0
    assert box.old_is_back()
    assert box.outcomes == ["undone"]


@KILLS
def test_the_same_switch_again_finishes_it(box: Box, killed: Callable[[Box], None]) -> None:
    killed(box)
    assert switch(box.path, "new").before == (OLD,), "what was there before it all began"
    assert box.outcomes == ["done"]


@KILLS
def test_another_switch_undoes_it_first(box: Box, killed: Callable[[Box], None]) -> None:
    killed(box)
    assert switch(box.path, "third").before == (OLD,)
    assert box.tabby.loaded == THIRD
    assert box.outcomes == ["undone", "done"]


@pytest.mark.parametrize("undo", [False, True])
def test_one_that_was_killed_before_its_first_step(box: Box, undo: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """What it meant to do is on the disk, and nothing else has happened."""
    before = [[OLD, {"max_seq_len": 2048, "cache_size": 3840, "cache_mode": "8,8"}]]
    with Journal(beside(box.path)) as journal:
        journal.begin("switch", server="tabby", model="new", context=None, cache=None, force=False, before=before, url="")
    assert main(["status", "--fleet", str(box.path)]) == 1
    assert re.search("the switch to new on tabby of .* was interrupted: hydra-infer switch .* --resume", capsys.readouterr().err)
    done = settle(box.path, undo=undo)
    assert done is not None
    if undo:
        assert (done.outcome, box.old_is_back(), box.tabby.loads) == ("undone", True, [])
    else:
        assert (done.outcome, box.tabby.loaded) == ("done", NEW)


def test_a_way_back_that_was_killed_is_gone_to_its_end(box: Box) -> None:
    before = [[OLD, {"max_seq_len": 2048, "cache_size": 3840, "cache_mode": "8,8"}]]
    box.tabby._card = None
    with Journal(beside(box.path)) as journal:
        journal.begin("switch", server="tabby", model="new", context=None, cache=None, force=False, before=before, url="")
        for step in ("load", "put back"):
            with pytest.raises(ZeroDivisionError), journal.step(step):
                raise ZeroDivisionError
    done = settle(box.path)
    assert done is not None
    assert done.outcome == "undone"
    assert box.old_is_back()


def test_a_resumed_one_that_does_not_fit_by_now_is_undone(box: Box, tmp_path: Path) -> None:
    in_load(box)
    too_large(box, tmp_path)
    with pytest.raises(LoadError, match=f"tabby has {OLD} again, not new"):
        settle(box.path)
    assert box.old_is_back()
    assert box.outcomes == ["undone"]


def test_a_killed_switch_where_nothing_was_loaded_leaves_nothing(box: Box) -> None:
    box.tabby._card = None
    in_verify(box)
    assert main(["switch", "--fleet", str(box.path), "--undo"]) == 0
    assert box.tabby.loaded is None


def test_a_server_that_the_file_no_longer_has(box: Box) -> None:
    in_verify(box)
    box.path.write_text(box.path.read_text().replace("tabby: {kind", "renamed: {kind"))
    with pytest.raises(ConfigError, match="has no server 'tabby' any more"):
        settle(box.path, undo=True)
    assert unsettled(box.path) is not None


def test_no_key_is_in_the_journal(box: Box) -> None:
    switch(box.path, "new")
    text = beside(box.path).read_text()
    assert API_KEY not in text
    assert ADMIN_KEY not in text
    assert json.loads(text.splitlines()[0])["facts"]["server"] == "tabby"


def test_wrong_usage(box: Box) -> None:
    assert main(["switch", "--fleet", str(box.path)]) == 2
    assert main(["switch", "new", "--fleet", str(box.path), "--undo"]) == 2
    assert settle(box.path) is None
