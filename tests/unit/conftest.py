"""Hand-made batches, gradients against finite differences, and a chat server that misbehaves."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from trainer.types import Batch, Evaluation


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """`make_batch(mask, returns=None, group=None, **fields)`: a batch of 0/1 rows, as long as
    `mask`. A row's return sits on its last action, or on its last position if it has none."""

    def make(
        mask: Sequence[Sequence[int]],
        returns: Sequence[float] | None = None,
        group: Sequence[int] | None = None,
        **fields: object,
    ) -> Batch:
        actions = torch.tensor(mask, dtype=torch.bool)
        rows, width = actions.shape
        rewards = torch.zeros(rows, width)
        for row, value in enumerate(returns or [0.0] * rows):
            own = actions[row].nonzero().flatten().tolist() or [width - 1]
            rewards[row, own[-1]] = value
        zeros = torch.zeros(rows, width)
        return Batch(
            **{
                "tokens": torch.zeros(rows, width, dtype=torch.long),
                "mask": actions,
                "length": torch.full((rows,), width),
                "turn": actions.long() - 1,
                "version": actions.long() - 1,
                "rewards": rewards,
                "weight": torch.ones(rows, width),
                "group": torch.tensor(group or [0] * rows),
                "rollout": torch.arange(rows),
                "sampled_logprobs": zeros,
                **fields,
            }
        )

    return make


@pytest.fixture
def full_batch() -> Batch:
    """float64, all fields filled; row 3 is truncated, row 4 has no advantage, row 5 no action."""
    rows, width = 6, 5
    generator = torch.Generator().manual_seed(7)

    def uniform(low: float, high: float) -> Tensor:
        values = torch.rand(rows, width, generator=generator, dtype=torch.float64)
        return low + (high - low) * values

    mask = torch.arange(width) < torch.tensor([5, 3, 4, 1, 2, 0])[:, None]
    advantages = torch.tensor([1.2, -0.7, -1.5, 0.4, 0.0, 1.0], dtype=torch.float64)
    old = uniform(-3.0, -0.5)
    return Batch(
        tokens=torch.randint(0, 50, (rows, width), generator=generator),
        mask=mask,
        length=torch.full((rows,), width),
        turn=mask.long() - 1,
        version=mask.long() - 1,
        rewards=uniform(0, 1) * mask,
        weight=torch.ones(rows, width, dtype=torch.float64),
        group=torch.arange(rows) // 2,
        truncated=torch.arange(rows) == 3,
        rollout=torch.arange(rows),
        sampled_logprobs=(old + uniform(-0.4, 0.4)) * mask,
        old_logprobs=old * mask,
        ref_logprobs=(old + uniform(-0.5, 0.5)) * mask,
        values=uniform(-1, 1) * mask,
        advantages=advantages[:, None] * mask,
        returns=uniform(-1, 1) * mask,
        extra={
            "current_logprobs": (old + uniform(-0.5, 0.5)) * mask,
            "old_entropy": uniform(0, 2) * mask,
            "scale": uniform(0.1, 1) * mask,
            "process": uniform(0, 1) * mask,
            "step_end": mask & (torch.arange(width) % 2 == 0),
        },
    )


@pytest.fixture
def seen_now(full_batch: Batch) -> Evaluation:
    """What the policy says of `full_batch`: leaves that take a gradient."""
    values, mask = full_batch.values, full_batch.mask
    now = Evaluation(
        logprobs=full_batch.extra["current_logprobs"],
        entropy=full_batch.extra["old_entropy"] + 0.3 * mask,
        values=values + 0.7 * torch.sin(torch.arange(values.shape[1])) * mask,
    )
    leaves = {f.name: getattr(now, f.name).detach().clone().requires_grad_() for f in fields(now)}
    return Evaluation(**leaves)


@contextmanager
def constants(known: list[Tensor] | None = None) -> Iterator[list[Tensor]]:
    """Notes what every `detach` inside gives; with `known`, gives that instead."""
    seen: list[Tensor] = []
    plain = Tensor.detach

    def detach(self: Tensor) -> Tensor:
        seen.append(plain(self) if known is None else known[len(seen)])
        return seen[-1]

    Tensor.detach = detach  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Tensor.detach = plain  # type: ignore[method-assign]


@pytest.fixture
def check_gradient() -> Callable[[Callable[[Evaluation], Tensor], Evaluation], bool]:
    """`check_gradient(scalar, evaluation)`: the gradient of a number made of an evaluation equals
    its central finite differences, with what the formula detaches held still, as a gradient
    takes it for constant. True if there is any gradient."""

    def check(scalar: Callable[[Evaluation], Tensor], now: Evaluation, step: float = 1e-6) -> bool:
        leaves = {field.name: getattr(now, field.name) for field in fields(now)}
        with constants() as known:
            total = scalar(now)
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)

        def value(name: str, place: int, shift: float) -> float:
            moved = leaves[name].detach().clone()
            moved.view(-1)[place] += shift
            with torch.no_grad(), constants(known):
                return scalar(replace(now, **{name: moved})).item()

        any_gradient = False
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True):
            slope = [
                (value(name, place, step) - value(name, place, -step)) / (2 * step)
                for place in range(leaf.numel())
            ]
            expected = torch.tensor(slope, dtype=leaf.dtype).view_as(leaf)
            gradient = torch.zeros_like(expected) if gradient is None else gradient
            assert_close(
                gradient, expected, rtol=1e-6, atol=1e-8, msg=f"{name}: {gradient - expected}"
            )
            any_gradient = any_gradient or bool(expected.any())
        return any_gradient

    return check


class ChatDouble:
    """An HTTP server of this process that answers chat questions as a test says, also badly.

    `says(body, nth)` gets the request and how many came before. It returns the text of the answer,
    or one of: (status, headers, bytes); "!close", which drops the connection; "!half", which
    stops in the middle of the JSON; "!hang", which says nothing for 30 s or until the test ends.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.says: Callable[[dict[str, Any], int], Any] = lambda body, nth: "<score>7</score>"
        self.over = threading.Event()
        self._lock = threading.Lock()
        double = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with double._lock:
                    nth = len(double.bodies)
                    double.bodies.append(body)
                    double.paths.append(self.path)
                    double.keys.append(self.headers.get("authorization"))
                    double.at_once += 1
                    double.most_at_once = max(double.most_at_once, double.at_once)
                said = double.says(body, nth)
                with double._lock:
                    double.at_once -= 1
                if said == "!hang":
                    double.over.wait(30)
                if said in ("!close", "!hang"):
                    self.close_connection = True
                    return
                half = said == "!half"
                if not isinstance(said, tuple):
                    choices = [{"message": {"role": "assistant", "content": said}}]
                    said = (200, {}, json.dumps({"choices": choices}).encode())
                status, headers, content = said
                self.send_response(status)
                for name, value in ({"content-length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if half else content)
                self.close_connection = half

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def text(self, index: int = -1) -> str:
        """Of the last message of a request."""
        content = self.bodies[index]["messages"][-1]["content"]
        return content if isinstance(content, str) else content[-1]["text"]


@pytest.fixture
def chat_double() -> Iterator[ChatDouble]:
    double = ChatDouble()
    yield double
    double.over.set()
    double.server.shutdown()
    double.server.server_close()
