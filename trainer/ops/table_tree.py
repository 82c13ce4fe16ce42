"""Tables of HTML as trees, and how far two of them are apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from trainer.ops.edit_distance import similarity

_KINDS = {"table": 0, "thead": 1, "tbody": 1, "tfoot": 1, "tr": 2, "td": 3, "th": 3}


@dataclass(slots=True)
class Node:
    tag: str
    spans: tuple[str, str] = ("1", "1")
    """colspan and rowspan."""
    text: str = ""
    """Of a cell: its text, without tags, white space as one blank."""
    children: list[Node] = field(default_factory=list)

    @property
    def size(self) -> int:
        return 1 + sum(child.size for child in self.children)


class _Reader(HTMLParser):
    def __init__(self, most: int):
        super().__init__(convert_charrefs=True)
        self.root: Node | None = None
        self.nodes, self.most = 0, most
        self._open: list[Node] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _KINDS or (tag == "table") != (self.root is None) or self.nodes > self.most:
            return
        while self._open and _KINDS[self._open[-1].tag] >= _KINDS[tag]:
            self._open.pop()  # an end tag was left out
        if self.root is not None and not self._open:
            return  # behind the end of the first table
        given = dict(attrs)
        node = Node(
            "td" if tag == "th" else tag,
            (given.get("colspan") or "1", given.get("rowspan") or "1"),
        )
        self.nodes += 1
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.root = node
        self._open.append(node)

    def handle_endtag(self, tag: str) -> None:
        tag = "td" if tag == "th" else tag
        if any(node.tag == tag for node in self._open):
            while self._open.pop().tag != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1].tag == "td":
            self._open[-1].text += data


def parse_table(text: str, most: int) -> Node | None:
    """The first `<table>` of a text, inner tables left out; None without one, or with more than
    `most` nodes. `th` is a cell as `td` is; forgotten end tags do not matter."""
    reader = _Reader(most)
    reader.feed(text)
    reader.close()
    if reader.root is None or reader.nodes > most:
        return None
    _squeeze(reader.root)
    return reader.root


def _squeeze(node: Node) -> None:
    node.text = " ".join(node.text.split())
    for child in node.children:
        _squeeze(child)


def teds(a: Node, b: Node) -> float:
    """1 - tree edit distance / nodes of the larger tree (Zhong et al., arXiv:1911.10683).

    Leaving out or adding a node costs 1; so does another tag, colspan or rowspan; cells that agree
    in these cost 1 - similarity of their texts.
    """
    return 1 - _distance(a, b) / max(a.size, b.size)


def _distance(a: Node, b: Node) -> float:
    """Zhang and Shasha 1989: nodes in postorder, subtrees by their leftmost leaf."""
    first, left_a = _postorder(a)
    second, left_b = _postorder(b)
    tree = [[0.0] * len(second) for _ in first]
    for i in _roots(left_a):
        for j in _roots(left_b):
            _forest(i, j, first, second, left_a, left_b, tree)
    return tree[-1][-1]


def _forest(
    i: int,
    j: int,
    first: list[Node],
    second: list[Node],
    left_a: list[int],
    left_b: list[int],
    tree: list[list[float]],
) -> None:
    """Fills `tree` for every pair of subtrees that share a leftmost leaf with i and j."""
    start_a, start_b = left_a[i], left_b[j]
    rows, columns = i - start_a + 2, j - start_b + 2
    found = [[float(y) if x == 0 else float(x) for y in range(columns)] for x in range(rows)]
    for x in range(1, rows):
        at = start_a + x - 1
        for y in range(1, columns):
            to = start_b + y - 1
            least = min(found[x - 1][y], found[x][y - 1]) + 1
            if left_a[at] == start_a and left_b[to] == start_b:
                least = min(least, found[x - 1][y - 1] + _change(first[at], second[to]))
                tree[at][to] = least
            else:
                before = found[left_a[at] - start_a][left_b[to] - start_b]
                least = min(least, before + tree[at][to])
            found[x][y] = least


def _change(a: Node, b: Node) -> float:
    if a.tag != b.tag or a.spans != b.spans:
        return 1.0
    return 1 - similarity(a.text, b.text) if a.tag == "td" else 0.0


def _postorder(root: Node) -> tuple[list[Node], list[int]]:
    """Nodes, children first, and the place of each one's leftmost leaf."""
    nodes: list[Node] = []
    leftmost: list[int] = []

    def visit(node: Node) -> int:
        places = [visit(child) for child in node.children]
        leftmost.append(places[0] if places else len(nodes))
        nodes.append(node)
        return leftmost[-1]

    visit(root)
    return nodes, leftmost


def _roots(leftmost: list[int]) -> list[int]:
    """Of all nodes with the same leftmost leaf the last one, in order."""
    return sorted({left: place for place, left in enumerate(leftmost)}.values())
