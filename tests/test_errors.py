"""The error tree: its drawing is true, and errors survive what happens to errors."""

from __future__ import annotations

import pickle

import pytest

from hydra_infer import errors

ALSO = {
    "MissingExtra": ImportError,
    "Unreachable": ConnectionError,
    "DeadlineExceeded": TimeoutError,
    "ConfigError": ValueError,
}


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_a_hydra_error_and_stands_in_the_drawing(name: str) -> None:
    cls = getattr(errors, name)
    assert issubclass(cls, errors.HydraError)
    assert issubclass(cls, ALSO.get(name, Exception))
    assert name in str(errors.__doc__).replace("─", " ").split()


def test_the_hint_travels_in_the_text() -> None:
    assert str(errors.UnknownModel("no model 'x'", hint="did you mean 'y'?")) == "no model 'x' (did you mean 'y'?)"
    assert str(errors.UnknownModel("no model 'x'")) == "no model 'x'"


def test_facts_become_attributes_and_survive_pickling() -> None:
    error = errors.StreamBroken("broke off", hint="look", backend="tabby", text="so far")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.backend, again.text, again.hint) == (str(error), "tabby", "so far", "look")


def test_defaults_are_there_without_being_given() -> None:
    assert errors.AllBackendsFailed("none").attempts == ()
    assert errors.Refused("no").status is None
