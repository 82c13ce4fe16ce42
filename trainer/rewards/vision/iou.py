"""How well a box in the reply covers the right one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trainer.ops import boxes
from trainer.ops.parsing import Unparsable
from trainer.rewards.base import LocatedReward, Verdict
from trainer.types import Prompt, Rollout

OVERLAPS = {"iou": boxes.iou, "giou": boxes.giou, "diou": boxes.diou, "ciou": boxes.ciou}


class IoU(LocatedReward):
    """Overlap of the box in the answer and the row's box.

    IoU = I / U in [0, 1]; GIoU = IoU - (C - U) / C and DIoU = IoU - d^2 / c^2 are in (-1, 1],
    CIoU = DIoU - v^2 / (1 - IoU + v) a little below; these are mapped to max(0, (1 + x) / 2)
    unless `mapped` is off. Boxes are (x1, y1, x2, y2), half-open, no +1 pixel. No box, or corners
    the wrong way round: the floor (0, or -1 if not mapped), `unparsable`. The right box is
    `prompt.answer`, or the column `box`; without any the reward does not apply; a wrong one
    raises. Sources: GIoU arXiv:1902.09630, DIoU and CIoU arXiv:1911.08287; `inclusive` is the IoU
    of VLM-R1's code (arXiv:2504.07615).
    """

    needs = frozenset({"answer|meta.box"})
    gold_columns = ("box",)

    kind: Literal["iou", "giou", "diou", "ciou"] = "iou"
    mapped: bool = True
    """giou, diou, ciou: map to [0, 1]."""
    threshold: float | None = Field(None, gt=0, le=1)
    """1 if the (mapped) overlap reaches it, else 0."""
    above: bool = False
    """The threshold must be passed, not only reached."""
    inclusive: bool = False
    """iou: VLM-R1's intersection, which counts pixels."""
    pick: Literal["first", "last", "best"] = "last"
    """Which of several boxes counts. `best` invites listing many."""
    sort_corners: bool = False
    """Accept corners the wrong way round."""

    @property
    def floor(self) -> float:
        return 0.0 if self.mapped or self.kind == "iou" or self.threshold else -1.0

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        right = boxes.scale_box(boxes.as_box(gold), self.factors(rollout, prompt))
        found = boxes.parse_boxes(answer)
        if not found:
            raise Unparsable(boxes.why_no_box(answer))
        if self.strict and (len(found) > 1 or not boxes.is_only_box(answer)):
            raise Unparsable("the answer is not one box and nothing else")
        if self.sort_corners:
            found = [boxes.sorted_corners(box) for box in found]
        if self.pick != "best":
            found = found[:1] if self.pick == "first" else found[-1:]
        kept = [self.admitted(box, rollout, prompt) for box in found if boxes.is_valid(box)]
        valid = [box for box in kept if boxes.is_valid(box)]
        if not valid:
            raise Unparsable("corners out of order" if not kept else "nothing is left in the image")
        overlap = max(self._overlap(box, right) for box in valid)
        if self.threshold is None:
            return overlap
        return overlap > self.threshold if self.above else overlap >= self.threshold

    def _overlap(self, box: Any, gold: boxes.Box) -> float:
        if self.inclusive and self.kind == "iou":
            return boxes.iou_inclusive(box, gold)
        value = OVERLAPS[self.kind](box, gold)
        return max(0.0, (1 + value) / 2) if self.mapped and self.kind != "iou" else value
