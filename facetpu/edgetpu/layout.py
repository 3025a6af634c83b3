"""Where each op stands when a model's graph is drawn: in layers from the top, lines crossing rarely.

After Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System Structures",
1981: layers by the longest way from the start, places for lines that pass a layer, an order in each layer
by the mean of the neighbours. The main line of ops runs down the left edge.
"""

from __future__ import annotations

from typing import NamedTuple, Sequence

WIDTH, HEIGHT = 188, 40  # of a box, in pixels
GAP_X, GAP_Y = 16, 24
LINE = 12  # width of the place of a line that passes a layer
MOST_PLACES = 20000  # beyond it a drawing serves nobody
_SWEEPS = 6


class Box(NamedTuple):
    """The left upper corner of a node's box."""

    x: float
    y: float


class Layout(NamedTuple):
    """A drawing: its size, a box for each node, and the lines, each the ``d`` of an SVG path."""

    width: float
    height: float
    boxes: list[Box]
    lines: list[str]


class _Place:
    """A node's place in its layer, or that of a line on its way past the layer."""

    def __init__(self, layer: int, width: float) -> None:
        self.layer, self.width, self.x = layer, width, 0.0
        self.above: list[_Place] = []
        self.below: list[_Place] = []


def layout(parents: Sequence[Sequence[int]]) -> Layout | None:
    """Lay out a graph.

    Args:
        parents: for each node, the nodes that lead to it, all of smaller numbers.

    Returns:
        None where it has more than ``MOST_PLACES`` nodes and passing lines.
    """
    layers: list[int] = []
    for before in parents:
        layers.append(1 + max((layers[node] for node in before), default=-1))
    lasts = list(layers)  # the layer that each node's lines reach
    for node, before in enumerate(parents):
        for parent in before:
            lasts[parent] = max(lasts[parent], layers[node])
    if sum(max(1, last - first) for first, last in zip(layers, lasts)) > MOST_PLACES:
        return None
    nodes = [_Place(layer, WIDTH) for layer in layers]
    ways = [_way(place, last) for place, last in zip(nodes, lasts)]
    for place, before in zip(nodes, parents):
        for parent in dict.fromkeys(before):
            _connect(ways[parent][place.layer - 1 - nodes[parent].layer], place)
    rows: list[list[_Place]] = [[] for _ in range(1 + max(layers, default=-1))]
    for way in ways:
        for place in way:
            rows[place.layer].append(place)
    _order(rows)
    _settle(rows)
    return _drawn(nodes, rows)


def _way(node: _Place, last: int) -> list[_Place]:
    """The node, and a place in each layer that its lines pass; all its lines share these."""
    way = [node]
    for layer in range(node.layer + 1, last):
        place = _Place(layer, LINE)
        _connect(way[-1], place)
        way.append(place)
    return way


def _connect(above: _Place, below: _Place) -> None:
    above.below.append(below)
    below.above.append(above)


def _order(rows: list[list[_Place]]) -> None:
    """Sort each layer by where its neighbours stand in the one before, down and up again; lines go right."""
    for row in rows:
        _number(row)
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        for row in rows if downwards else reversed(rows):
            means = {place: _mean(place.above if downwards else place.below, place.x) for place in row}
            row.sort(key=lambda place: (-place.width, means[place]))
            _number(row)


def _number(row: list[_Place]) -> None:
    for number, place in enumerate(row):
        place.x = number


def _mean(neighbours: list[_Place], otherwise: float) -> float:
    return sum(place.x for place in neighbours) / len(neighbours) if neighbours else otherwise


def _settle(rows: list[list[_Place]]) -> None:
    """Put each place under the leftmost of those above it, or as near as those to its left allow."""
    for row in rows:
        edge = 0.0
        for place in row:
            above = min((other.x for other in place.above), default=0.0)
            place.x = max(above, edge + place.width / 2)
            edge = place.x + place.width / 2 + GAP_X


def _drawn(nodes: list[_Place], rows: list[list[_Place]]) -> Layout:
    places = [place for row in rows for place in row]
    lines = [_line(place, below) for place in places for below in place.below]
    lines += [f"M{p.x:.1f} {_top(p):.1f}V{_top(p) + HEIGHT:.1f}" for p in places if p.width == LINE]
    return Layout(
        width=max((place.x + place.width / 2 for place in places), default=0.0),
        height=len(rows) * (HEIGHT + GAP_Y) - GAP_Y,
        boxes=[Box(node.x - WIDTH / 2, _top(node)) for node in nodes],
        lines=lines,
    )


def _top(place: _Place) -> float:
    return place.layer * (HEIGHT + GAP_Y)


def _line(above: _Place, below: _Place) -> str:
    """From the lower edge of one place to the upper edge of another in the next layer."""
    start, end = _top(above) + HEIGHT, _top(below)
    middle = (start + end) / 2
    return (
        f"M{above.x:.1f} {start:.1f}C{above.x:.1f} {middle:.1f} {below.x:.1f} {middle:.1f} "
        f"{below.x:.1f} {end:.1f}"
    )
