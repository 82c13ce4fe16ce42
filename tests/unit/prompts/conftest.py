"""Sources of prompts, and the properties that every stream must have."""

from __future__ import annotations

import json
from itertools import islice

import pytest

from trainer.prompts.base import Prompts


@pytest.fixture(scope="session")
def build():
    """A source from what a recipe says."""
    return Prompts.model_validate


@pytest.fixture
def write(tmp_path):
    """Writes rows as lines of JSON and returns the path."""

    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.fixture(scope="session")
def view():
    """What must be equal for two prompts to be the same."""

    def view(prompt):
        messages = [
            (m["role"], [p.get("text") or p["image"].tobytes() for p in m["content"]])
            if isinstance(m["content"], list)
            else (m["role"], m["content"])
            for m in prompt.messages
        ]
        return prompt.id, messages, prompt.answer, prompt.task, prompt.meta, prompt.serial

    return view


@pytest.fixture(scope="session")
def resumes(view):
    """Asserts that a stream which is saved after `n` prompts goes on as if it never stopped."""

    def check(source, n, *, more=30, observe=lambda stream, prompt: None, seed=3):
        def draw(stream, count):
            prompts = []
            for prompt in islice(iter(lambda: next(stream), None), count):
                observe(stream, prompt)
                prompts.append(view(prompt))
            return prompts

        whole = source.stream(seed)
        draw(whole, n)
        state = json.loads(json.dumps(whole.state_dict()))
        resumed = source.stream(seed)
        resumed.load_state_dict(state)
        expected = draw(whole, more)
        assert draw(resumed, more) == expected
        assert resumed.state_dict() == whole.state_dict()
        assert [prompt[-1] for prompt in expected] == list(range(n, n + more))

    return check
