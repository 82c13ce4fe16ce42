"""How near a table in HTML is to the right one, in structure and cells."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from trainer.ops.detections import fenced
from trainer.ops.parsing import Unparsable
from trainer.ops.table_tree import Node, parse_table, teds
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout


class Table(AnswerReward):
    """TEDS = 1 - tree edit distance / nodes of the larger tree, in [0, 1] (arXiv:1911.10683).

    The first table of the answer counts, code fence or not. No table, or one of more than `longest`
    times the row's nodes (and 100): 0, `unparsable`. The row's `answer` is HTML with one table of
    at most 1,000 nodes, or a list of accepted ones: the best.
    """

    longest: float = Field(4.0, gt=0)

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        accepted = [_right(text) for text in (gold if isinstance(gold, list | tuple) else [gold])]
        most = max(100, int(self.longest * max(node.size for node in accepted)))
        given = parse_table(fenced(answer), most)
        if given is None:
            raise Unparsable(f"no <table> of at most {most} nodes in the answer")
        return max(teds(given, right) for right in accepted)


def _right(text: Any) -> Node:
    found = parse_table(str(text), 1000)
    if found is None:
        raise ValueError(f"expected HTML with a table of at most 1,000 nodes, got {text!r:.80}")
    return found
