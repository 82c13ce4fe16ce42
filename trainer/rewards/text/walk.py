"""Whether a walk along a line of letters is legal and ends at its goal (`synthetic/walk`)."""

from __future__ import annotations

import string

from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout


class Walk(PointwiseReward):
    """1 if the reply is a walk `+d+e` from `meta.start` that ends at `meta.goal` within
    `meta.moves` moves, every move being one letter on (`+`) or back (`-`) and staying among the
    first `meta.places` letters; else 0. Meeting the goal on the way is not enough. Dots at the
    end do not count.
    """

    needs = frozenset({"meta.start", "meta.goal", "meta.places", "meta.moves"})

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        reply, meta = rollout.reply.strip().rstrip("."), prompt.meta
        letters = string.ascii_lowercase[: meta["places"]]
        place = letters.index(meta["start"])
        if len(reply) % 2 or len(reply) > 2 * meta["moves"]:
            return False
        for sign, letter in zip(reply[::2], reply[1::2], strict=True):
            place += {"+": 1, "-": -1}.get(sign, 2 * len(letters))
            if not 0 <= place < len(letters) or letters[place] != letter:
                return False
        return letters[place] == meta["goal"]
