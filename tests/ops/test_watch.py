"""watch: the right process, the right port, the right model, and a token; else which of them is wrong."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.ollama import OllamaServer
from servers.tabby import ADMIN_KEY, API_KEY, Folder, TabbyServer

from hydra_infer.cli import main
from hydra_infer.ops.doctor.report import Report
from hydra_infer.ops.orphan import recorded
from hydra_infer.ops.prestart import Means
from hydra_infer.ops.processes import process
from hydra_infer.ops.watch import watch, watch_fleet

pytestmark = pytest.mark.usefixtures("no_leaks")

MODEL = "some-model"


class Place:
    """A TabbyAPI and its folder; time passes only by waiting, and `then` happens after the first wait."""

    def __init__(self, folder: Path, server: TabbyServer) -> None:
        self.folder, self.server, self.now, self.then = folder, server, 0.0, lambda: None
        self.config, self.tokens = folder / "config.yml", folder / "api_tokens.yml"
        self.tokens.write_text(f"api_key: {API_KEY}\nadmin_key: {ADMIN_KEY}\n")
        self.say()

    def say(self, model: str = MODEL) -> None:
        self.config.write_text(f"network:\n  port: {self.server.port}\nmodel:\n  model_name: {model}\n")

    def load(self, model: str = MODEL) -> None:
        self.server._card = self.server._card_for(model, {})

    def means(self) -> Means:
        return Means(clock=lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.then()

    def watch(self, **options: Any) -> Report:
        report = watch(self.config, means=self.means(), **{"pid": os.getpid(), "wait": 5.0, **options})
        assert API_KEY not in f"{report}{report!r}"
        return report


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with TabbyServer([MODEL, "other"], MODEL) as server:
        yield Place(tmp_path, server)


def whats(report: Report) -> list[str]:
    return [one.what for one in report]


def test_all_is_right(place: Place) -> None:
    record = place.folder / "served-by"
    assert str(place.watch(record=record)) == "nothing is wrong"
    me = process(os.getpid())
    assert me is not None
    assert recorded(record) == (me.pid, me.started)
    assert [asked.json()["max_tokens"] for asked in place.server.requests if asked.method == "POST"] == [1]


def test_a_load_is_waited_for(place: Place) -> None:
    place.server._card = None
    place.then = lambda: place.load() if place.now == 3 else None
    assert place.watch().healthy
    assert place.now == 3.0


def test_a_server_that_is_not_up_yet_is_waited_for(place: Place) -> None:
    place.server.close()
    place.then = lambda: place.server.start() if place.now == 2 else None
    assert place.watch().healthy


def test_one_that_never_loads(place: Place) -> None:
    place.server._card = None
    report = place.watch(record=place.folder / "served-by")
    assert whats(report) == ["it does not serve after 5 s: no model is loaded (or one is being loaded)"]
    assert not (place.folder / "served-by").exists()


def test_a_process_that_has_ended_is_not_waited_for(place: Place) -> None:
    assert whats(place.watch(pid=2**22 + 1)) == [f"its process {2**22 + 1} has ended"]
    assert place.now == 0.0


def test_another_process_on_the_port(place: Place) -> None:
    report = place.watch(pid=os.getppid())
    assert whats(report) == [f"port {place.server.port} belongs to {process(os.getpid())}"]
    assert place.server.requests == [], "it is not asked anything, and gets no key"
    assert "belongs to" in whats(place.watch(pid=None))[0], "it runs in another folder"


def test_another_model(place: Place) -> None:
    place.load("other")
    assert whats(place.watch()) == [f"it has 'other' loaded, not '{MODEL}'"]


def test_a_model_that_does_not_answer(place: Place) -> None:
    place.server.folders[MODEL] = Folder(template=False)
    place.load()
    assert f"{MODEL} does not answer" in whats(place.watch())[0]


def test_another_key(place: Place) -> None:
    place.tokens.write_text("api_key: [sesame]\n")
    assert whats(place.watch()) == ["it refuses the key in api_tokens.yml"]


def test_where_owners_are_hidden_that_is_said(place: Place) -> None:
    machine = dataclasses.replace(place.means().machine, root=place.folder)
    report = watch(place.config, wait=1.0, means=dataclasses.replace(place.means(), machine=machine))
    assert [one.severity for one in report] == ["unseen"]


def test_a_fleet_is_asked_by_what_it_has_loaded(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WATCH_KEY", API_KEY)
    with OllamaServer(["a:1b", "e:1b"]) as ollama:
        fleet = place.folder / "hydra.yaml"
        fleet.write_text(
            f"servers:\n"
            f"  tabby: {{kind: tabby, url: '{place.server.url}', api_key: {{env: WATCH_KEY}}, models: {{m: {MODEL}}}}}\n"
            f"  ollama: {{kind: ollama, url: '{ollama.url}', models: {{a: 'a:1b', e: {{name: 'e:1b', embeds: true}}}}}}\n"
        )
        assert whats(watch_fleet(fleet)) == ["whether it answers: none of its models is loaded"]
        assert ollama.loads == [], "nothing is loaded for it"
        assert main(["watch", str(fleet)]) == 0
        place.server._card = None
        assert main(["watch", str(fleet)]) == 1
        assert "tabby: it does not serve: no model is loaded" in capsys.readouterr().out
    assert main(["watch"]) == 2
