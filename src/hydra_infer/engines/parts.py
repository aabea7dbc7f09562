"""Reader: parts what a model writes into content, reasoning and tool calls, as it comes."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from .calls import HEAD, NOTHING, Taken, schemas
from .formats import Format

__all__ = ["Reader"]

Delta = dict[str, Any]
Mode = Literal["text", "thought", "call"]

LETTERS = string.ascii_letters + string.digits
# Every call ends with one of these, so that a long one is not read again at each of its tokens.
FINALS = frozenset("}]>")


def _id() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(9))


class Reader:
    """Feed it the answer as it is decoded; it gives OpenAI-shaped deltas.

    {"content": …}, {"reasoning_content": …} and {"tool_calls": [{"index", "id", "type", "function"}]}, each call whole.
    It holds back only what may still become a tag or a call. What turns out to be neither comes out as content, and only
    white space beside tags is left out. `prompt` is the rendered one: it may have begun the model's thoughts. Without
    `tools` (OpenAI's), or with tool_choice "none", nothing is taken for a call. `new_id` gives the nine letters and
    digits that make a call's id. However the text is cut, the deltas add up to the same.
    """

    def __init__(
        self,
        form: Format,
        *,
        prompt: str = "",
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: Any = None,
        new_id: Callable[[], str] = _id,
    ) -> None:
        self._format, self._new_id = form, new_id
        self._tools = {} if tool_choice == "none" else schemas(tools or ())
        self._think = form.think
        callable_ = form.read is not None and (bool(self._tools) or form.channels)
        self._anywhere = (*form.opens, *form.drops) if callable_ else ()
        # A tag of thoughts counts where nothing has been said: an answer may speak about such tags.
        self._first = (form.starts if callable_ else ()) + (form.think[:1] if form.think else ())
        self._close = form.drops[0] if form.channels else form.think[1] if form.think else ""
        self._mode: Mode = "thought" if form.thinking(prompt) else "text"
        self._silent = True  # nothing but space since the beginning, or since the last tag
        self._tagged = self._mode == "thought"  # a tag came before
        self._held = ""
        self._said: list[Delta] = []
        self._calls = 0

    @property
    def called(self) -> bool:
        """Whether there was a call: the finish_reason is "tool_calls" then."""
        return self._calls > 0

    def feed(self, text: str) -> list[Delta]:
        """What `text` adds to the answer."""
        self._held += text
        if self._mode == "call" and len(self._held) > 2 * HEAD and FINALS.isdisjoint(text):
            return []
        return self._read(ended=False)

    def end(self) -> list[Delta]:
        """What was held back; the answer is over."""
        return self._read(ended=True)

    def _read(self, *, ended: bool) -> list[Delta]:
        self._said = []
        steps = {"text": self._text, "thought": self._thought, "call": self._call}
        while self._held and steps[self._mode](ended):
            pass
        return self._said

    def _text(self, ended: bool) -> bool:
        """One step in what may be content; False when more text is needed."""
        if self._silent and (self._anywhere or self._first):
            return self._opening(ended)
        at, tag = _earliest(self._held, self._anywhere)
        keep = 0 if tag or ended else _unfinished(self._held, self._anywhere)
        self._say("content", self._take(at if tag else len(self._held) - keep))
        if tag:
            self._open(tag)
        return bool(tag)

    def _opening(self, ended: bool) -> bool:
        """The same before the first word, where space may be a tag's and some tags count that do not later."""
        words = self._held.lstrip()
        tags = self._first + self._anywhere
        tag = next((tag for tag in tags if words.startswith(tag)), None)
        if tag is None and not ended and any(tag.startswith(words) for tag in tags):
            return False
        if tag:
            self._open(tag)
        elif self._tagged:
            self._take(len(self._held) - len(words))
            self._silent = not words
        else:
            self._silent = False
        return True

    def _open(self, tag: str) -> None:
        if self._think and tag == self._think[0]:
            self._pass(len(self._held) - len(self._held.lstrip()) + len(tag))
            self._mode = "thought"
        elif tag in self._format.drops:
            self._pass(self._held.index(tag) + len(tag))
        else:
            self._mode = "call"

    def _thought(self, ended: bool) -> bool:
        if self._silent:
            self._held = self._held.lstrip()
            self._silent = not self._held
        at, tag = _earliest(self._held, (self._close,))
        if tag:
            self._say("reasoning_content", self._take(at).rstrip())
            self._pass(len(tag))
            self._mode = "text"
            return True
        keep = 0 if ended else _unfinished(self._held, (self._close,))
        words = len(self._held) - keep
        if not ended:
            words = len(self._held[:words].rstrip())  # space before the tag is the tag's
        self._say("reasoning_content", self._take(words))
        return False

    def _call(self, ended: bool) -> bool:
        space = len(self._held) - len(self._held.lstrip())
        assert self._format.read is not None
        taken = self._format.read(self._held[space:], self._tools, ended)
        if taken is None:
            return False
        self._mode = "text"
        if taken == NOTHING:
            self._not_a_call(space)
        else:
            self._called(taken, space)
        return True

    def _not_a_call(self, space: int) -> None:
        """The tag was a word: say it, and look on behind it."""
        tag = next(tag for tag in (*self._first, *self._anywhere) if self._held.startswith(tag, space))
        if self._silent and self._tagged:
            self._take(space)
            space = 0
        self._silent = False
        self._say("content", self._take(space + len(tag)))

    def _called(self, taken: Taken, space: int) -> None:
        self._pass(space + taken.length)
        if taken.channel == "reasoning":
            self._mode = "thought"
        for name, arguments in taken.calls:
            call = {"id": self._format.prefix + self._new_id(), "type": "function"}
            self._said.append(
                {"tool_calls": [{"index": self._calls, **call, "function": {"name": name, "arguments": arguments}}]}
            )
            self._calls += 1

    def _pass(self, length: int) -> None:
        """Leave a tag behind."""
        self._take(length)
        self._silent = self._tagged = True

    def _take(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text

    def _say(self, kind: str, text: str) -> None:
        if not text:
            return
        if self._said and kind in self._said[-1]:
            self._said[-1][kind] += text
        else:
            self._said.append({kind: text})


def _earliest(text: str, tags: Iterable[str]) -> tuple[int, str]:
    """Where the first of the tags begins, and which it is ("" for none)."""
    found = [(at, tag) for tag in tags if (at := text.find(tag)) >= 0]
    return min(found, default=(-1, ""))


def _unfinished(text: str, tags: Iterable[str]) -> int:
    """How many characters at the end may be the beginning of a tag."""
    longest = max((len(tag) for tag in tags), default=0)
    return next((n for n in range(min(longest - 1, len(text)), 0, -1) if any(tag.startswith(text[-n:]) for tag in tags)), 0)
