"""Sandbox: the jinja2 that somebody else's chat template runs in: it sees plain data, and its work is bounded."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from ..errors import ConfigError, MissingExtra

__all__ = ["MAX_OUTPUT", "Refusal", "run"]

# A context of a million tokens is about 4 million characters.
MAX_OUTPUT = 32_000_000
# jinja2's sandbox bounds one range() to 100,000 steps; nested loops multiply. Ten loops over a chat of
# 1,000 messages take 10,000 turns.
MAX_TURNS = 200_000

TURN = f"turn_{secrets.token_hex(8)}"  # called in every turn of every loop; a template that knew the name could set it


class Refusal(Exception):
    """The template called raise_exception: these messages are not for it."""


def run(source: str, where: str, variables: Mapping[str, Any]) -> str:
    """The template's text with these variables. `where` is named in errors.

    Raises Refusal where the template refuses, ConfigError where it is broken, does what the sandbox forbids or does not
    come to an end, MissingExtra without jinja2.
    """
    template = _compiled(source, where)
    pieces: list[str] = []
    length = 0
    for piece in _guarded(template.generate({**variables, TURN: _Turns(where)}), where):
        length += len(piece)
        if length > MAX_OUTPUT:
            raise ConfigError(f"{where}: the chat template wrote more than {MAX_OUTPUT:,} characters", hint="it may not end")
        pieces.append(piece)
    return "".join(pieces)


@lru_cache(maxsize=16)
def _compiled(source: str, where: str) -> Any:
    """The jinja2 template. Raises ConfigError with the line for one that is no jinja2."""
    try:
        import jinja2
        from jinja2 import nodes
    except ImportError as error:
        raise MissingExtra("chat templates need jinja2, which is not installed", hint="pip install 'jinja2>=3.1.6'") from error

    environment = _environment()
    try:
        tree = environment.parse(source)
        for loop in list(tree.find_all(nodes.For)):
            loop.body.insert(0, nodes.ExprStmt(nodes.Call(nodes.Name(TURN, "load"), [], [], None, None), lineno=loop.lineno))
        return environment.from_string(tree)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{where}, line {error.lineno} of the chat template: {error.message}") from error
    except RecursionError:
        raise ConfigError(f"{where}: the chat template nests too deeply") from None


def _environment() -> Any:
    """Settings, names and filters that Hugging Face's templates count on (transformers 5.23, chat_template_utils.py)."""
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} … {% endgeneration %} marks what a model is trained on; here it is only what it encloses."""

        tags = {"generation"}  # noqa: RUF012  jinja2's own way to say it

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class Bounded(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("*", "**"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**":
                raise SecurityError("a chat template has no use for powers")
            for text, times in ((left, right), (right, left)):
                if isinstance(text, str | list | tuple) and isinstance(times, int) and len(text) * times > MAX_OUTPUT:
                    raise SecurityError(f"a text repeated {times:,} times")
            return super().call_binop(context, operator, left, right)

    environment = Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _tojson
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    return environment


def _guarded(pieces: Iterator[str], where: str) -> Iterator[str]:
    import jinja2

    try:
        yield from pieces
    except (Refusal, ConfigError):
        raise
    except jinja2.exceptions.SecurityError as error:
        raise ConfigError(f"{where}: the chat template does what is not allowed to one: {error}") from error
    except Exception as error:  # a template's expressions may raise whatever Python can
        raise ConfigError(f"{where}: the chat template failed: {type(error).__name__}: {error}") from error


class _Turns:
    """Counts the turns of a rendering's loops."""

    def __init__(self, where: str) -> None:
        self._where, self._count = where, 0

    def __call__(self) -> str:
        self._count += 1
        if self._count > MAX_TURNS:
            raise ConfigError(f"{self._where}: the chat template's loops took more than {MAX_TURNS:,} turns")
        return ""


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """jinja2's own would write < as \\u003c, for web pages."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> NoReturn:
    raise Refusal(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
