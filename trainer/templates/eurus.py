r"""Asks for reasoning by named actions, as PRIME's start model was taught (arXiv:2502.01456)."""

from __future__ import annotations

from trainer.templates.base import Template


class Eurus(Template):
    r"""The wording is ours; the seven actions and the line that ends a block are the paper's. Rows
    of PRIME-RL/Eurus-2-RL-Data carry the original wording themselves, and that wins. `suffix` asks
    for a \boxed{} answer, as their mathematics rows do."""

    system: str | None = (
        "Solve the task as a sequence of steps. Begin each step with the name of its action, and "
        "end it with a line that names the next one.\n"
        "[ASSESS] Say what is given, what is asked, and what makes it hard.\n"
        "[ADVANCE] Do the next part of the work, and say why it follows.\n"
        "[VERIFY] Check what has been found so far, by another way if there is one.\n"
        "[SIMPLIFY] Replace the task or a part of it by an easier equal one.\n"
        "[SYNTHESIZE] Put partial results together.\n"
        "[PIVOT] Give up an approach that fails, and choose another.\n"
        "[OUTPUT] Give the final answer, clearly marked.\n"
        'After each step but the last write: "Next action: [NAME]".'
    )
    """System prompt; null leaves it out. A row's own system message wins."""
    suffix: str = "\n\nPut the final answer in \\boxed{}."
    """Added to the end of the last user turn."""
