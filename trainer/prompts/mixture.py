"""Several sources in fixed proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from trainer.ops.shuffle import stable_hash
from trainer.plugin import Frozen
from trainer.prompts.base import Heldout, Prompts, Stream
from trainer.types import Group, Prompt

if TYPE_CHECKING:
    from collections.abc import Mapping


class Member(Frozen):
    """One source of a mixture."""

    prompts: Prompts
    weight: float = Field(1.0, gt=0)
    """Its share is its weight over the sum of weights."""


class Mixture(Prompts):
    """After n prompts every member has given its share of n, to within one prompt or so: the next
    prompt comes from the member that is furthest behind. Ids get the member's name in front."""

    members: dict[str, Member] = Field(min_length=1)

    @field_validator("members")
    @classmethod
    def _named(cls, value: dict[str, Member]) -> dict[str, Member]:
        if wrong := [name for name in value if not name or "/" in name or name == "heldout"]:
            raise ValueError(f"a member may not be called {wrong[0]!r}")
        return value

    def stream(self, seed: int) -> MixtureStream:
        return MixtureStream(
            {
                name: member.prompts.stream(stable_hash((seed, name)) >> 1)
                for name, member in self.members.items()
            },
            {name: member.weight for name, member in self.members.items()},
        )

    def heldout(self, limit: int | None = None) -> Sequence[Prompt]:
        """The members' held-out prompts in turn: a limit takes as many of each as there are."""
        parts = {name: member.prompts.heldout() for name, member in self.members.items()}
        longest = max(len(part) for part in parts.values())
        order = [(name, i) for i in range(longest) for name, part in parts.items() if i < len(part)]
        order = order if limit is None else order[:limit]

        def made(item: int) -> Prompt:
            name, i = order[item]
            inner = parts[name][i]
            own = inner.id.removeprefix("heldout/")
            return replace(inner, id=f"heldout/{name}/{own}", serial=-1 - item)

        return Heldout(len(order), made)

    def columns(self) -> set[str]:
        """What the prompts of every member have."""
        return set.intersection(*(member.prompts.columns() for member in self.members.values()))


class MixtureStream:
    def __init__(self, streams: Mapping[str, Stream], weights: Mapping[str, float]):
        self._streams, self._weights = streams, weights
        self._counts = dict.fromkeys(streams, 0)

    def __next__(self) -> Prompt:
        serial = sum(self._counts.values())
        total = sum(self._weights.values())
        name = max(
            self._streams,
            key=lambda n: self._weights[n] / total * (serial + 1) - self._counts[n],
        )
        prompt = next(self._streams[name])
        self._counts[name] += 1
        return replace(prompt, id=f"{name}/{prompt.id}", serial=serial)

    def observe(self, group: Group) -> None:
        """Tells the member that gave the prompt, under the id that the member knows."""
        name, _, own = group.prompt.id.partition("/")
        self._streams[name].observe(Group(replace(group.prompt, id=own), group.rollouts))

    def state_dict(self) -> dict[str, Any]:
        return {
            "counts": dict(self._counts),
            "streams": {name: stream.state_dict() for name, stream in self._streams.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._counts = {name: state["counts"][name] for name in self._streams}
        for name, stream in self._streams.items():
            stream.load_state_dict(state["streams"][name])
