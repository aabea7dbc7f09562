"""Loading, unloading and pulling a model on one server: which one, in which steps, and what is put right when one fails.

A generator of instructions, as the failover flow is: a sync and an async driver obey it and decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ConfigError, DeadlineExceeded, HydraError, LoadError, Refused, UnknownModel, Unreachable
from ..wire.dialect import DIALECTS, get
from ..wire.exchange import WireRequest, broken
from ..wire.lifecycle import LIFECYCLES, Lifecycle, Reading
from ..wire.ollama import is_cloud
from ..wire.openai import Target
from ..wire.tabby import ANY_MODEL
from ..wire.trouble import Failure, Trouble
from .backend import LocalModel
from .call import Limits, Pause, Probe, Wait
from .errand import Ask, Change, Errand, Foresee, Foresight
from .place import Candidate, Place
from .pool import Pool
from .turns import Turns
from .verdict import unknown_model

__all__ = ["Changing", "change"]

Step = Ask | Foresee | Pause | Probe | Wait
Changing = Generator[Step, Any, Change]

# A look at what a server has, before and after.
_LOOK_SECONDS = 3.0
# TabbyAPI says "finished" a moment before its model answers; Ollama says "unload" before the memory is free.
_SETTLING, _SETTLED_WITHIN = 0.25, 10.0


def change(errand: Errand, pool: Pool, turns: Turns, clock: Callable[[], float]) -> Changing:
    """Instructions for one errand; returns the Change, raises the HydraError that says how things stand now."""
    return _Changing(errand, pool, turns, clock).steps()


@dataclass(frozen=True, slots=True)
class _Held:
    """What a server has in memory: names with contexts, and its own answer."""

    loaded: dict[str, int | None] = field(default_factory=dict)
    body: bytes = b""


@dataclass(slots=True)
class _Changing:
    errand: Errand
    pool: Pool
    turns: Turns
    clock: Callable[[], float]
    place: Place = field(init=False)
    local: LocalModel = field(init=False)
    began: float = field(init=False)

    def steps(self) -> Changing:
        self.began = self.clock()
        able = self._able()
        # Where it is loaded is asked anew; else a server that never told what it has is asked once.
        looked_at = able if self.errand.verb == "unload" else [place for place in self.pool.unasked() if place in able]
        if looked_at:
            yield Probe(tuple(place.backend for place in looked_at), _LOOK_SECONDS)
        self.place, self.local = self._choose(able)
        url, patience = self.place.backend.url, self._within_deadline(self.errand.timeout)
        turn = self.turns.take(url)
        try:
            yield Wait(turn, patience)
            if not turn.done():
                raise self._error(Failure(Trouble.SILENT, f"another change of its models is not over after {patience:g} s"))
            done: Change = yield from {"load": self._load, "unload": self._unload, "pull": self._pull}[self.errand.verb]()
            yield Probe((self.place.backend,), _LOOK_SECONDS)  # calls should know what it has now
            return replace(done, seconds=round(self.clock() - self.began, 3))
        finally:
            self.turns.leave(url, turn)

    # ---- which server ----------------------------------------------------------------------------------------

    def _able(self) -> list[Place]:
        """The servers that can be told this, in list order; only the one that was named, if one was."""
        named = self.errand.backend
        places = [place for place in self.pool.places if named in (None, place.backend.name)]
        if not places:
            raise ConfigError(
                f"backend={named!r} is not one of this router's",
                hint=f"there are {', '.join(place.backend.name for place in self.pool.places)}",
            )
        able = [place for place in places if _can(place.backend.kind, self.errand.verb)]
        if not able:
            raise _cannot(places, self.errand.verb)
        return able

    def _choose(self, able: list[Place]) -> tuple[Place, LocalModel]:
        """The first that serves the model (to unload: the first that has it loaded), with its own name for it."""
        verb, model = self.errand.verb, self.errand.model
        serving = [candidate for candidate in self.pool.serving(model) if candidate.place in able]
        if verb == "unload":
            serving.sort(key=lambda candidate: not candidate.place.is_loaded(candidate.local))
        if not serving:  # nobody listed it: a server may have what it does not show, and can pull what it has not
            serving = [Candidate(place, LocalModel(model)) for place in able if verb == "pull" or place.backend.models is None]
        if not serving:
            elsewhere = [place for place, _ in self.pool.serving(model)]
            if elsewhere and self.errand.backend is None:
                raise _cannot(elsewhere, verb)
            ours = {place.backend.name for place in able}
            raise unknown_model(model, [name for name, by in self.pool.models().items() if ours & set(by)])
        place, local = serving[0]
        if verb == "load" and place.backend.kind == "tabby" and local.name == ANY_MODEL:
            raise ConfigError(
                f"{place.backend.name} calls {model!r} {ANY_MODEL!r}, which means whatever is loaded there",
                hint=f"name its folder to load it: models={{{model!r}: 'its folder'}}",
            )
        if is_cloud(local.name) and place.backend.kind == "ollama" and not place.backend.allow_cloud:
            raise ConfigError(f"{local.name!r} runs in Ollama's cloud, not on {place.backend.name}", hint="name a local model")
        return place, local

    # ---- what is done ----------------------------------------------------------------------------------------

    def _load(self) -> Generator[Step, Any, Change]:
        words, wish = self._words, self.errand.wish
        words.settings(wish)  # what this server has no word for is refused before anything is touched
        before = yield from self._held()
        name, was_there = self.local.name, self.local.name in before.loaded
        if was_there and words.meets(wish, before.loaded[name], before.body):
            return self._change(changed=False, context=before.loaded[name])
        local = self.local
        configured = replace(
            wish, context=wish.context or local.context or self.place.backend.context, cache=wish.cache or local.cache
        )
        foresight = Foresight("not planned: force=True")
        if not self.errand.force:
            foresight = yield Foresee(self.place.backend, self.errand.model, name, configured)
        if was_there and words.alone:  # it would take no new settings for a model that it has
            yield from self._must(words.unload(self._target(name)), Reading())
        settings = {**words.settings(configured), **foresight.settings}
        failure, lost = yield from self._bring(name, settings)
        if failure is not None:
            raise self._error(failure, (yield from self._aftermath(before, lost=lost)))
        held = yield from self._held()
        context = held.loaded.get(name, configured.context)
        self.pool.welcome(self.place, self.local, context, settings)
        return self._change(context=context, replaced=_gone(before, held), planned=foresight.note, plan=foresight.plan)

    def _bring(self, name: str, settings: Mapping[str, Any]) -> Generator[Step, Any, tuple[Failure | None, bool]]:
        """Have a model loaded: what went wrong, and whether it was the connection, so that the load may go on there."""
        words = self._words
        reading = words.loading()
        lost: Failure | None = yield self._ask(words.load(self._target(name), settings), reading)
        if lost is not None or reading.failure is not None or not words.alone:
            return lost or reading.failure, lost is not None
        settled = yield from self._until(lambda held: name in held.loaded, _SETTLED_WITHIN)
        return (None if settled else broken(f"it said that {name!r} is loaded, and then did not have it")), False

    def _aftermath(self, before: _Held, *, lost: bool) -> Generator[Step, Any, str]:
        """After a load that failed: what the server has now, the old model put back where the load took it away."""
        words = self._words
        if lost:
            return "the load may go on there" if words.alone else "leaving a server that loads ends its load"
        if not before.loaded:
            return ""
        try:
            gone = _gone(before, (yield from self._held()))
            if not gone:
                return f"still loaded there: {', '.join(_names(before))}"
            if words.remember is None:
                return f"no longer loaded there: {', '.join(gone)}"
            old, settings = words.remember(before.body)
            failed, _ = yield from self._bring(old, {**self.pool.loaded_with(self.place, old), **settings})
        except HydraError as error:
            return f"what it has loaded now is not known: {error.message}"
        return f"{old!r} was put back" if failed is None else f"{old!r}, loaded before, could not be put back: {failed.message}"

    def _unload(self) -> Generator[Step, Any, Change]:
        before = yield from self._held()
        name = self.local.name
        if name not in before.loaded:
            return self._change(changed=False)
        yield from self._must(self._words.unload(self._target(name)), Reading())
        # A model that answers somebody is kept until it has; nothing else takes long.
        if not (yield from self._until(lambda held: name not in held.loaded, self.errand.timeout)):
            raise self._error(Failure(Trouble.SILENT, "it still answers others, and is unloaded when it has"))
        return self._change()

    def _pull(self) -> Generator[Step, Any, Change]:
        assert self._words.pull is not None
        yield from self._must(self._words.pull(self._target(self.local.name)), self._words.pulling())
        return self._change()

    def _change(self, *, changed: bool = True, **facts: Any) -> Change:
        return Change(self.errand.verb, self.place.backend.name, self.errand.model, self.local.name, changed, **facts)

    # ---- asking ----------------------------------------------------------------------------------------------

    @property
    def _words(self) -> Lifecycle:
        return LIFECYCLES[self.place.backend.kind]

    def _target(self, name: str = "") -> Target:
        return Target(self.place.backend.url, name, self.place.backend.admin_headers())

    def _held(self) -> Generator[Step, Any, _Held]:
        """What it has in memory now; the pool is told too. Raises where it will not say."""
        dialect = DIALECTS[self.place.backend.kind]
        assert dialect.loaded_path is not None
        assert dialect.read_loaded is not None
        reading = Reading()
        lost: Failure | None = yield self._ask(get(dialect.loaded_path, self._target()), reading)
        if (failure := lost or reading.failure) is not None:
            if failure.status != 503:  # TabbyAPI's answer when nothing is loaded
                raise self._error(failure)
            held = _Held()
        else:
            body = bytes(reading.body)
            try:
                held = _Held(dialect.read_loaded(body), body)
            except ValueError as error:
                raise self._error(broken(str(error))) from error
        self.pool.tell_loaded(self.place.backend, held.loaded)
        return held

    def _until(self, is_so: Callable[[_Held], bool], seconds: float) -> Generator[Step, Any, bool]:
        """Look until it is so, at most so long; whether it is."""
        ends_at = self.clock() + self._within_deadline(seconds)
        while not is_so((yield from self._held())):
            if self.clock() >= ends_at:
                return False
            yield Pause(_SETTLING)
        return True

    def _must(self, request: WireRequest, reading: Reading) -> Generator[Step, Any, None]:
        lost: Failure | None = yield self._ask(request, reading)
        if (failure := lost or reading.failure) is not None:
            raise self._error(failure)

    def _ask(self, request: WireRequest, reading: Reading) -> Ask:
        errand, patience = self.errand, self.errand.timeout
        connect = self.place.backend.timeouts.connect_timeout or errand.connect
        limits = Limits(connect, patience, "timeout", patience, "timeout", None, errand.ends_at, sign="sign of progress")
        return Ask(self.place.backend, errand.model, request, reading, limits)

    def _within_deadline(self, seconds: float) -> float:
        ends_at = self.errand.ends_at
        return seconds if ends_at is None else max(0.0, min(seconds, ends_at - self.clock()))

    def _error(self, failure: Failure, aftermath: str = "") -> HydraError:
        """The error to raise, by what went wrong; `aftermath` says how things stand on the server now."""
        backend, verb, name = self.place.backend.name, self.errand.verb, self.local.name
        message = f"{backend} did not {verb} {name!r}: {failure.message}" + (f"; {aftermath}" if aftermath else "")
        if failure.limit == "deadline" or (self.errand.ends_at is not None and self.clock() >= self.errand.ends_at):
            return DeadlineExceeded(message, hint="allow more time with deadline=…")
        if failure.trouble is Trouble.MISCONFIGURED:
            key = "admin_key" if self.place.backend.kind == "tabby" else "api_key"
            hint = f"{key}: in the fleet file, or Backend.{self.place.backend.kind}(…, {key}=…)"
            return Refused(message, hint=hint, backend=backend, status=failure.status)
        if failure.trouble is Trouble.UNREACHABLE:
            return Unreachable(message, hint="router.status() shows each one", backend=backend)
        if failure.trouble in (Trouble.NO_MODEL, Trouble.CALLER) and verb == "load":
            hint = "router.pull(…) fetches one" if self._words.pull else "a model there is a folder in its model_dir"
            return UnknownModel(message, hint=hint, backend=backend)
        return LoadError(message, hint="router.status() (hydra-infer status) shows what it has", backend=backend)


def _names(held: _Held) -> tuple[str, ...]:
    return tuple(name for name in held.loaded if name != ANY_MODEL)


def _gone(before: _Held, now: _Held) -> tuple[str, ...]:
    """What was loaded and no longer is."""
    return tuple(name for name in _names(before) if name not in now.loaded)


def _cannot(places: list[Place], verb: str) -> ConfigError:
    kinds = " and ".join(kind for kind in LIFECYCLES if _can(kind, verb))
    who = ", ".join(f"{place.backend.name} ({place.backend.kind})" for place in places)
    return ConfigError(f"{who} cannot {verb} models", hint=f"backends of these kinds can: {kinds}")


def _can(kind: str, verb: str) -> bool:
    words = LIFECYCLES.get(kind)
    return words is not None and (verb != "pull" or words.pull is not None)
