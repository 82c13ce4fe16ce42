"""Token paths in one sequence without padding, shared beginnings placed once.

The rows of a group begin with the same prompt, and the branches of a rollout tree with the same
turns. `pack` lays them out as a forest of segments: a segment holds the tokens that its paths have
in common, its children go on from there. Every token is computed once. `PackedPlan` gives each
segment the attention it would have in its own row: to its ancestors and, causally, to itself.

    paths            segments (parent)       packed
    a b c d          a b   (-)               a b c d x y z
    a b x y z        c d   (0)
                     x y z (0)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

MIN_BRANCH = 8
"""Fewest tokens that two branches below a shared beginning must have in common to be placed once:
many tiny segments cost more in attention calls than they save."""
MAX_AREA = 2**24
"""Largest padded queries x keys of one attention call."""
WASTE = 0.3
"""Largest share of a call's queries x keys that may be padding ..."""
FREE_AREA = 2**15
"""... unless the whole call is smaller than this: then one more call costs more than padding."""


@dataclass(frozen=True, slots=True)
class Path:
    """One row as far as it is computed."""

    tokens: Tensor  # i[n] on the CPU, n >= 1
    family: Hashable
    """Only paths of one family may share tokens: same prompt, same images."""
    pinned: int = 0
    """A shared beginning must hold at least this many tokens: those that take their embeddings
    from images, which are placed once per beginning."""


@dataclass(frozen=True, slots=True)
class Segment:
    start: int  # in the packed sequence
    length: int
    ancestors: Tensor  # i[a] packed indices of the tokens before it in its path


@dataclass(frozen=True, slots=True)
class Packed:
    """L packed tokens."""

    tokens: Tensor  # i[L]
    index: list[Tensor]  # per path i[n]: packed index of each of its tokens
    segments: list[Segment]
    roots: list[int]
    """For each segment without ancestors, in packed order, a path that begins with it."""

    def arrange(self, per_path: Sequence[Tensor]) -> Tensor:
        """[..., L] from one [..., n] per path; paths that share a token must agree on it."""
        first = per_path[0]
        packed = first.new_empty((*first.shape[:-1], self.tokens.shape[0]))
        for index, values in zip(self.index, per_path, strict=True):
            packed[..., index] = values
        return packed


def pack(paths: Sequence[Path], *, share: bool = True) -> Packed:
    """Packs `paths` (at least one). `share=False` places every path on its own."""
    families: dict[Hashable, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        families[path.family if share else i].append(i)
    layout = _Layout(paths)
    for members in families.values():
        layout.add_family(members)
    return layout.packed()


_Placed = tuple[list[int], int, int]
"""Paths that contain a segment, and its first and last + 1 position in them."""


def split(
    paths: Sequence[Path], extra: Sequence[int], budget: int, *, packing: str
) -> list[list[int]]:
    """Cuts `paths`, in this order, into runs of at most `budget` tokens as `packing` (see
    `Policy.packing`) would lay them out. `extra` are tokens that come with a path's images,
    counted as often as the images are. A path above the budget is alone."""
    parts: list[list[int]] = []
    size: _Shared | _Flat | None = None
    for i, path in enumerate(paths):
        if size is None or size.with_(path, extra[i]).total > budget:
            size = _Shared() if packing == "shared" else _Flat(padded=packing == "padded")
            parts.append([])
        size = size.with_(path, extra[i])
        parts[-1].append(i)
    return parts


@dataclass(frozen=True, slots=True)
class _Flat:
    padded: bool
    rows: int = 0
    longest: int = 0
    tokens: int = 0
    extra: int = 0

    @property
    def total(self) -> int:
        return (self.rows * self.longest if self.padded else self.tokens) + self.extra

    def with_(self, path: Path, extra: int) -> _Flat:
        n = len(path.tokens)
        return _Flat(
            self.padded, self.rows + 1, max(self.longest, n), self.tokens + n, self.extra + extra
        )


@dataclass(frozen=True, slots=True)
class _Shared:
    """Each family's common beginning once; branches below it may share more, so `total` is an
    upper bound. Only the last family can grow: paths of a family follow each other, or it is
    counted as another one."""

    done: int = 0
    first: Path | None = None
    shared: int = 0
    tokens: int = 0
    count: int = 0
    extra: int = 0

    @property
    def total(self) -> int:
        if not self.shared:
            return self.done + self.tokens + self.extra * self.count
        return self.done + self.tokens - self.shared * (self.count - 1) + self.extra

    def with_(self, path: Path, extra: int) -> _Shared:
        n = len(path.tokens)
        if self.first is None or path.family != self.first.family:
            return _Shared(self.total, path, n, n, 1, extra)
        shared = min(self.shared, _common_prefix(self.first.tokens, path.tokens))
        if shared < max(path.pinned, self.first.pinned):
            shared = 0
        return _Shared(self.done, self.first, shared, self.tokens + n, self.count + 1, extra)


class _Layout:
    """Roots come first in the packed sequence, in the order of their families, so that image
    features fill it in that order."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths
        self.roots: list[_Placed] = []

    def add_family(self, members: list[int]) -> None:
        first = self.paths[members[0]].tokens
        shared = min(_common_prefix(first, self.paths[i].tokens) for i in members)
        if shared and shared >= max(self.paths[i].pinned for i in members):
            self.roots.append((members, 0, shared))
        else:
            self.roots += [([i], 0, len(self.paths[i].tokens)) for i in members]

    def _branches(self, members: list[int], start: int, agreed: int) -> Iterator[_Placed]:
        """Segments of paths that agree on [0, agreed) and are placed up to `start`; parents
        before children."""
        if len(members) > 1 and agreed - start >= MIN_BRANCH:
            yield members, start, agreed
            start = agreed
        following: dict[int, list[int]] = defaultdict(list)
        for i in members:
            tokens = self.paths[i].tokens
            if len(tokens) > agreed:
                following[int(tokens[agreed])].append(i)
            elif len(tokens) > start:
                yield [i], start, len(tokens)
        for same in following.values():
            first = self.paths[same[0]].tokens
            if len(same) == 1:
                yield same, start, len(first)
            else:
                end = min(_common_prefix(first, self.paths[i].tokens) for i in same[1:])
                yield from self._branches(same, start, end)

    def packed(self) -> Packed:
        placed = list(self.roots)
        for owners, _, end in self.roots:
            placed += self._branches(owners, end, end)
        index = [torch.empty(len(path.tokens), dtype=torch.long) for path in self.paths]
        segments, pieces, at = [], [], 0
        for owners, start, end in placed:
            length = end - start
            for i in owners:
                index[i][start:end] = torch.arange(at, at + length)
            segments.append(Segment(at, length, index[owners[0]][:start]))
            pieces.append(self.paths[owners[0]].tokens[start:end])
            at += length
        return Packed(torch.cat(pieces), index, segments, [owners[0] for owners, *_ in self.roots])


def _common_prefix(a: Tensor, b: Tensor) -> int:
    """Number of equal tokens at the beginning of i[n] and i[m]."""
    n = min(len(a), len(b))
    differs = (a[:n] != b[:n]).nonzero()
    return int(differs[0]) if len(differs) else n


class PackedPlan:
    """`AttentionPlan` of a packed sequence.

    Padding exists only inside an attention call, and only between segments of similar length.
    Roots need no mask (causal, right-padded); the others attend to [ancestors | own tokens].
    """

    def __init__(self, packed: Packed, device: torch.device | str):
        self.length = packed.tokens.shape[0]
        roots = [s for s in packed.segments if not len(s.ancestors)]
        others = [s for s in packed.segments if len(s.ancestors)]
        self.calls = [_Call(part, device) for part in [*_buckets(roots), *_buckets(others)]]
        restore = torch.empty(self.length, dtype=torch.long)
        offset = 0
        for call in self.calls:
            for row, segment in enumerate(call.segments):
                here = torch.arange(segment.length) + offset + row * call.queries
                restore[segment.start : segment.start + segment.length] = here
            offset += len(call.segments) * call.queries
        self.restore = restore.to(device)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float
    ) -> Tensor:
        """query [1, H, L, D], key and value [1, Hk, L, D] -> [1, L, H, D]."""
        if query.shape[0] != 1 or query.shape[2] != self.length:
            raise ValueError(f"plan of {self.length} packed tokens got a query {query.shape}")
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [L, heads, D]
        parts = [call.attend(q, k, v, scale, dropout) for call in self.calls]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        return joined.index_select(0, self.restore)[None]


class _Call:
    """One attention call over segments of similar length: R rows, Q queries, K keys."""

    def __init__(self, segments: list[Segment], device: torch.device | str):
        self.segments = segments
        self.queries = max(s.length for s in segments)
        own = torch.stack([_stretch(s.start, s.length, self.queries) for s in segments])
        before = pad_sequence([s.ancestors for s in segments], batch_first=True)
        self.query_index = own.reshape(-1).to(device)
        self.key_index = torch.cat([before, own], 1).reshape(-1).to(device)
        self.visible = _visible([len(s.ancestors) for s in segments], self.queries, device)
        self.masks: dict[torch.dtype, Tensor] = {}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float) -> Tensor:
        """[L, H, D], [L, Hk, D], [L, Hk, D] -> [R * Q, H, D]."""
        rows = len(self.segments)
        q = _rows(q, self.query_index, rows)
        k, v = _rows(k, self.key_index, rows), _rows(v, self.key_index, rows)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=self._mask(q.dtype),
            is_causal=self.visible is None,
            dropout_p=dropout,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out.transpose(1, 2).flatten(0, 1)

    def _mask(self, dtype: torch.dtype) -> Tensor | None:
        """Additive, made once for all layers."""
        if self.visible is None:
            return None
        if dtype not in self.masks:
            zeros = torch.zeros(self.visible.shape, dtype=dtype, device=self.visible.device)
            self.masks[dtype] = zeros.masked_fill(~self.visible, float("-inf"))
        return self.masks[dtype]


def _rows(x: Tensor, index: Tensor, rows: int) -> Tensor:
    return x.index_select(0, index).unflatten(0, (rows, -1)).transpose(1, 2)


def _stretch(start: int, length: int, width: int) -> Tensor:
    """start, start + 1, ..., padded to `width` with the last index."""
    return torch.arange(start, start + width).clamp(max=start + length - 1)


def _visible(before: list[int], queries: int, device: torch.device | str) -> Tensor | None:
    """b[R or 1, 1, Q, K]: which of [ancestors, padded to the longest | own] a query sees. None if
    there are no ancestors: plain causal attention. Padded queries see something, so no row of the
    softmax is empty; their output is never read."""
    if not any(before):
        return None
    longest = max(before)
    lengths = before[:1] if len(set(before)) == 1 else before
    is_real = torch.arange(longest) < torch.tensor(lengths)[:, None]  # [R, A]
    causal = torch.ones(queries, queries, dtype=torch.bool).tril()
    rows = len(lengths)
    left = is_real[:, None].expand(rows, queries, longest)
    return torch.cat([left, causal.expand(rows, queries, queries)], 2)[:, None].to(device)


def _buckets(segments: list[Segment]) -> list[list[Segment]]:
    """Segments of similar length together, longest first."""
    order = sorted(segments, key=lambda s: (-s.length, -len(s.ancestors), s.start))
    buckets: list[list[Segment]] = []
    queries = keys = real = 0
    for segment in order:
        area = segment.length * (segment.length + len(segment.ancestors))
        if buckets:
            width = max(keys, queries + len(segment.ancestors))
            padded = (len(buckets[-1]) + 1) * queries * width
            wasted = padded - real - area
            if padded <= FREE_AREA or (padded <= MAX_AREA and wasted <= WASTE * padded):
                buckets[-1].append(segment)
                keys, real = width, real + area
                continue
        buckets.append([segment])
        queries, keys, real = segment.length, segment.length + len(segment.ancestors), area
    return buckets
