"""Log-probs of chosen tokens from hidden states, without logits of the whole batch in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Targets:
    """Which token is asked for after which hidden state; equal questions are asked once.

    `sources` i[M] are indices of hidden states, `tokens` i[M] the tokens that follow them, both on
    the CPU. Answers are [M], in the order of the questions.
    """

    def __init__(self, sources: Tensor, tokens: Tensor):
        vocabulary = int(tokens.max()) + 1
        pairs, self.order = torch.unique(sources * vocabulary + tokens, return_inverse=True)
        self.tokens = pairs % vocabulary
        self.sources, self.owners = torch.unique_consecutive(
            pairs // vocabulary, return_inverse=True
        )

    def chunks(self, size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(sources i[<= size], owners, tokens) per chunk; owners index the chunk's sources."""
        starts = torch.arange(0, len(self.sources), size)
        bounds = [*torch.searchsorted(self.owners, starts).tolist(), len(self.owners)]
        return [
            (self.sources[s : s + size], self.owners[a:b] - s, self.tokens[a:b])
            for s, a, b in zip(starts.tolist(), bounds, bounds[1:], strict=False)
        ]


def chunked_logprobs(
    head: nn.Module,
    hidden: Tensor,
    targets: Targets,
    *,
    banned: Tensor,
    temperature: float = 1.0,
    chunk: int = 2048,
    entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """log softmax(logits / temperature)[token] for every target, and the entropy in nats.

    hidden f[N, D] -> f[M], f[M] | None, in float32 at least. Logits exist for `chunk` hidden
    states at a time, also in the backward pass, where they are computed again. `banned` i[b] ids
    are outside of the softmax: their probability is 0.
    """

    def part(states: Tensor, owners: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        return _logprobs(head(states), owners, tokens, banned, temperature, entropy)

    found = [
        checkpoint(
            part,
            hidden.index_select(0, sources.to(hidden.device)),
            owners.to(hidden.device),
            tokens.to(hidden.device),
            use_reentrant=False,
        )
        for sources, owners, tokens in targets.chunks(chunk)
    ]
    order = targets.order.to(hidden.device)
    logprobs = torch.cat([answer for answer, _ in found]).index_select(0, order)
    if not entropy:
        return logprobs, None
    return logprobs, torch.cat([spread for _, spread in found]).index_select(0, order)


def _logprobs(
    logits: Tensor,
    owners: Tensor,
    tokens: Tensor,
    banned: Tensor,
    temperature: float,
    entropy: bool,
) -> tuple[Tensor, Tensor | None]:
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    if temperature != 1:
        logits = logits / temperature
    logprobs = logits.index_fill(-1, banned, float("-inf")).log_softmax(-1)
    chosen = logprobs[owners, tokens]
    if not entropy:
        return chosen, None
    finite = logprobs.index_fill(-1, banned, 0.0)  # 0 * -inf would be NaN
    return chosen, -(logprobs.exp() * finite).sum(-1)[owners]


Answers = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Log-probs, entropy and values, f[M] each; None for what was not asked for."""


class LogprobModel(nn.Module):
    """A transformers model with its heads, seen as "inputs in, log-probs out".

    Everything that touches a parameter happens in `forward`, so DDP, FSDP2 and DeepSpeed can wrap
    it like any module. `compute` float32 leaves the parameters' type, bfloat16 is autocast.
    `head`: `lm`, `value` (one number per hidden state, 0 at the start of training) or `both`.
    """

    def __init__(
        self, backbone: nn.Module, *, head_chunk: int, compute: torch.dtype, head: str = "lm"
    ):
        super().__init__()
        self.backbone = backbone
        self.head_chunk, self.compute, self.head = head_chunk, compute, head
        if head != "lm":
            width = backbone.get_output_embeddings().in_features
            self.value_head = nn.utils.skip_init(nn.Linear, width, 1)  # keeps the random state
            for parameter in self.value_head.parameters():
                nn.init.zeros_(parameter)
        if head == "value" and not _tied(backbone):  # no gradient would ever reach it
            backbone.get_output_embeddings().requires_grad_(False)

    def forward(
        self,
        inputs: dict[str, Any],
        targets: Targets,
        banned: Tensor,
        temperature: float = 1.0,
        entropy: bool = False,
    ) -> Answers:
        """`inputs` are keyword arguments of the model without its head, giving hidden states
        [N, L, D]; sources of `targets` count through N x L. See `chunked_logprobs`."""
        half = self.compute is not torch.float32
        with torch.autocast(banned.device.type, dtype=self.compute, enabled=half):
            hidden = self.backbone.base_model(**inputs, use_cache=False).last_hidden_state
            hidden = hidden.flatten(0, 1)
            values = self._values(hidden, targets) if self.head != "lm" else None
            if self.head == "value":
                return None, None, values
            logprobs, spread = chunked_logprobs(
                self.backbone.get_output_embeddings(),
                hidden,
                targets,
                banned=banned,
                temperature=temperature,
                chunk=self.head_chunk,
                entropy=entropy,
            )
            return logprobs, spread, values

    def _values(self, hidden: Tensor, targets: Targets) -> Tensor:
        """f[M] in the type of the parameters: bfloat16 knows only three digits of a value."""
        states = hidden.index_select(0, targets.sources.to(hidden.device))
        with torch.autocast(hidden.device.type, enabled=False):
            values = self.value_head(states.to(self.value_head.weight.dtype))[:, 0]
        asked = targets.owners.index_select(0, targets.order)
        return values.index_select(0, asked.to(hidden.device))


def _tied(backbone: nn.Module) -> bool:
    """True where the output head is the embedding of the input."""
    return backbone.get_output_embeddings().weight is backbone.get_input_embeddings().weight
