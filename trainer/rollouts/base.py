"""Contract of an agent, and the recorder it writes to.

An agent is one async function: it samples, appends what the world answers, or forks. The session
records token ids exactly as they were sampled; text is never encoded a second time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from trainer.engines.base import Engine, Request, Sampling
from trainer.plugin import Plugin
from trainer.types import Group, Prompt, Rollout, Span, Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from trainer.renderer import Rendered, Renderer


class Session:
    """A conversation being recorded.

    Example: `session = Session.start(...); await session.sample(); session.append("tool", ...)`.
    """

    def __init__(
        self,
        prompt: Prompt,
        engine: Engine,
        renderer: Renderer,
        sampling: Sampling,
        rollout: Rollout,
        *,
        seed: int,
        member: int,
        tip: int | None,
        line: tuple[int, ...] = (),
    ):
        """`line` says by which forks the session came about: () for the first one."""
        self.prompt, self.engine, self.renderer, self.sampling = prompt, engine, renderer, sampling
        self.rollout, self.seed, self.member, self.tip = rollout, seed, member, tip
        self.line, self._forks = line, 0

    @classmethod
    def start(
        cls,
        prompt: Prompt,
        engine: Engine,
        renderer: Renderer,
        sampling: Sampling,
        *,
        seed: int,
        member: int,
        rendered: Rendered | None = None,
    ) -> Session:
        """Opens a rollout with the prompt's messages. `rendered` spares rendering them again for
        every member of a group."""
        rendered = rendered or renderer.render(prompt.messages, name=prompt.id)
        session = cls(
            prompt,
            engine,
            renderer,
            sampling,
            Rollout(member=member),
            seed=seed,
            member=member,
            tip=None,
        )
        session._record("user", "data", rendered)
        return session

    @property
    def tokens(self) -> list[int]:
        """Every token from the root to here."""
        spans = self.rollout.spans
        return [t for i in self.rollout.path(self.tip) for t in spans[i].tokens]

    @property
    def inputs(self) -> dict[str, Any]:
        """Model inputs along the path, concatenated."""
        return path_inputs(self.rollout, self.tip)

    async def sample(self, sampling: Sampling | None = None) -> Span:
        """Asks the engine for the next turn and records it; sets the rollout's status."""
        sampling = sampling or self.sampling
        # Sessions of one rollout may sample at the same time, in any order, also from one place.
        depth = len(self.rollout.path(self.tip))
        key = (self.prompt.serial, self.member, depth, *self.line)
        reply = await self.engine.sample(
            Request(
                tokens=self.tokens,
                sampling=sampling,
                seed=seed_of(self.seed, *key),
                inputs=self.inputs,
                order=key,
            )
        )
        if reply.finish != "stop":
            # Cut off by the engine is cut off: what it wrote is no natural end, and is trained as
            # any truncated reply. Without a token there is nothing to score.
            self.rollout.status = Status.TRUNCATED if reply.tokens else Status.ABORTED
        text = self.renderer.decode(reply.tokens)
        return self._answered(text, reply.tokens, reply.logprobs, reply.version)

    def append(self, role: str, author: str, content: Any) -> Span:
        """Records a turn that the policy did not write (a tool's result, a user's reply)."""
        last = self.rollout.spans[self.tip] if self.tip is not None else None
        closed = last is not None and last.tokens[-1:] and last.tokens[-1] in self.renderer.stop_ids
        message = {"role": role, "content": content}
        rendered = self.renderer.render_more((message,), closed=bool(closed))
        return self._record(role, author, rendered)

    def fork(self) -> Session:
        """A second session that continues from here in the same rollout; the two sample
        differently."""
        self._forks += 1
        return Session(
            self.prompt,
            self.engine,
            self.renderer,
            self.sampling,
            self.rollout,
            seed=self.seed,
            member=self.member,
            tip=self.tip,
            line=(*self.line, self._forks),
        )

    def replay(self, text: str, tokens: list[int]) -> Span:
        """Records a reply that was written elsewhere, as if the policy had sampled it; its
        log-probs are unknown and stand as 0, its version as -1."""
        n = len(tokens)
        return self._answered(text, tokens, [0.0] * n, [-1] * n)

    def _answered(
        self, text: str, tokens: Sequence[int], logprobs: Sequence[float], version: Sequence[int]
    ) -> Span:
        return self._add(
            Span(
                parent=self.tip,
                role="assistant",
                author="policy",
                message=text,
                tokens=list(tokens),
                sampled=[True] * len(tokens),
                logprobs=list(logprobs),
                version=list(version),
            )
        )

    def _record(self, role: str, author: str, rendered: Rendered) -> Span:
        n = len(rendered.tokens)
        if rendered.inputs:  # rewards that run without pixels read boxes in the model's own pixels
            sizes = [[w, h] for h, w in self.renderer.resized_sizes(rendered.inputs)]
            self.rollout.meta.setdefault("image_sizes", []).extend(sizes)
        return self._add(
            Span(
                parent=self.tip,
                role=role,
                author=author,
                message=rendered.text,
                tokens=list(rendered.tokens),
                sampled=[False] * n,
                logprobs=[0.0] * n,
                version=[-1] * n,
                inputs=rendered.inputs,
            )
        )

    def _add(self, span: Span) -> Span:
        self.rollout.spans.append(span)
        self.tip = len(self.rollout.spans) - 1
        return span


Finished = Callable[[Rollout], None]
"""What an agent tells of a rollout to which nothing is added any more."""


def unheard(rollout: Rollout) -> None:
    """For those who do not want to know."""


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from a key such as (run seed, serial, member, turn); stable across runs."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def path_inputs(rollout: Rollout, leaf: int | None) -> dict[str, Any]:
    """Model inputs of a path. One span's tensors are passed through untouched, so rows that
    share them can be told by identity; several are concatenated along dim 0."""
    found = [rollout.spans[i].inputs for i in rollout.path(leaf) if rollout.spans[i].inputs]
    if len(found) <= 1:
        return found[0] if found else {}
    import torch

    return {name: torch.cat([inputs[name] for inputs in found]) for name in found[0]}


class Agent(Plugin):
    """Plays a prompt `group_size` times."""

    family: ClassVar[str] = "trainer.rollouts"
    samples: ClassVar[bool] = True
    """False for agents that replay recorded answers: no engine is opened for them."""
    gives_baseline: ClassVar[bool] = False
    """True if every group comes with a `Group.baseline`."""

    @property
    def evaluated(self) -> Agent:
        """Who plays held-out prompts: this agent, without what only training needs."""
        return self

    async def play(
        self,
        prompt: Prompt,
        engine: Engine,
        renderer: Renderer,
        sampling: Sampling,
        *,
        group_size: int,
        seed: int,
        finished: Finished = unheard,
    ) -> Group:
        """`seed` is the run's; a member's own seed comes from it, the serial and the member.
        `finished` may be called with each rollout as soon as it is complete: it is then scored
        while the others go on."""
        raise NotImplementedError
