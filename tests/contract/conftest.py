"""The shared tests are in a module of another kind of name; their assertions are to be told in full all the same."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("scenarios")
