"""The graph, and its pictures."""

from __future__ import annotations

import json
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.catalog.lineage import LineageEdge, LineageGraph, LineageNode
from tailrace.core.errors import ArtifactNotFound

if TYPE_CHECKING:
    from .conftest import Lab

GOLDEN = Path(__file__).parent / "golden"
SVG = "{http://www.w3.org/2000/svg}"


def node(id: str, /, **values: str | int | bool | None) -> LineageNode:
    """A node that is called as its id is."""
    fields = {"type": "Model", "version": "v1", "digest": f"blake3:{id}", "step": "make", "output": "out"}
    fields |= {"run_id": "a1", "pipeline": "p", "project": "q", "uri": f"file:///{id}", "created": "2026"}
    return LineageNode(**{"id": id, "name": id, "map_index": None, **fields, **values})  # type: ignore[arg-type]


def edge(parent: str, child: str, *, replaced: bool = False) -> LineageEdge:
    return LineageEdge(parent, child, "make", "a1", "x", replaced)


@st.composite
def graphs(draw: st.DrawFn) -> LineageGraph:
    """Graphs without cycles, with missing nodes and mapped siblings among them."""
    count = draw(st.integers(1, 14))
    nodes = [
        node(f"n{index}", missing=draw(st.booleans()), map_index=draw(st.none() | st.integers(0, 3)))
        for index in range(count)
    ]
    pairs = draw(st.sets(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=30))
    edges = [edge(f"n{min(pair)}", f"n{max(pair)}") for pair in sorted(pairs) if pair[0] != pair[1]]
    return LineageGraph.of(f"n{draw(st.integers(0, count - 1))}", nodes, dict.fromkeys(edges))


# --- what is in it ----------------------------------------------------------------------------------------------------


def test_the_lineage_of_a_report_leads_back_to_the_data(lab: Lab) -> None:
    lab.training("a1")
    graph = lab.synced().lineage("a1/report/page", down=False)
    assert [found.name for found in graph.nodes] == [
        "data",
        "test_set",
        "train_set",
        "candidate",
        "candidate",
        "candidate",
        "best",
        "page",
    ]
    made = {(edge.step, edge.input) for edge in graph.edges}
    assert made == {
        ("split", "data"),
        ("train", "rows"),
        ("select", "candidates"),
        ("report", "model"),
        ("report", "rows"),
    }


def test_the_lineage_of_data_leads_on_to_everything_that_was_made_of_it(lab: Lab) -> None:
    refs = lab.training("a1")
    catalog = lab.synced()
    assert len(catalog.lineage(refs["data"].id, up=False).nodes) == 8
    assert [found.name for found in catalog.lineage(refs["data"].id, down=False).nodes] == ["data"]
    beside = {found.name for found in catalog.lineage(refs["candidate1"].id).nodes}
    assert beside == {"data", "train_set", "candidate", "best", "page"}


@pytest.mark.parametrize(("depth", "count"), [(0, 1), (1, 3), (2, 7), (3, 8), (9, 8), (None, 8)])
def test_a_depth_limits_how_many_steps_away(lab: Lab, depth: int | None, count: int) -> None:
    lab.training("a1")
    assert len(lab.synced().lineage("a1/report/page", depth=depth).nodes) == count


def test_a_lineage_crosses_runs_and_what_was_saved_by_hand(lab: Lab) -> None:
    refs = lab.training("a1")
    holidays = lab.commit("calendars/holidays", "25 December", type="Dataset")
    run = lab.run("b1", pipeline="scoring")
    scores = run.task("score", {"scores": 1}, {"model": refs["best"], "calendar": holidays})["scores"]
    run.end()
    graph = lab.synced().lineage(scores.id)
    assert graph.runs == ("a1", "b1")
    assert {found.name for found in graph.nodes if not found.run_id} == {"holidays"}
    assert len(graph.nodes) == 8


def test_a_parent_that_was_deleted_is_missing_and_can_still_be_asked_for(lab: Lab) -> None:
    refs = lab.training("a1")
    catalog = lab.synced()
    lab.store.delete(refs["best"].uri)
    catalog.sync()
    graph = catalog.lineage("a1/report/page")
    (gone,) = [found for found in graph.nodes if found.missing]
    assert (gone.id, gone.name, gone.digest) == (refs["best"].id, "best", refs["best"].digest)
    assert [found.name for found in catalog.lineage(refs["best"].id).nodes] == ["best", "page"]
    with pytest.raises(ArtifactNotFound):
        catalog.artifact(refs["best"].id)


def test_a_parent_that_was_replaced_since_is_marked(lab: Lab) -> None:
    data = lab.commit("data/wine", "red")
    run = lab.run("a1")
    run.task("train", {"model": 1}, {"rows": data})
    run.end()
    catalog = lab.synced()
    assert [found.replaced for found in catalog.lineage("a1/train/model").edges] == [False]
    lab.commit("data/wine", "white")
    catalog.sync()
    graph = catalog.lineage("a1/train/model")
    assert [found.replaced for found in graph.edges] == [True]
    assert "n1 -.->" in graph.to_mermaid()


def test_an_input_that_was_taken_twice_is_one_edge_with_both_names(lab: Lab) -> None:
    run = lab.run("a1")
    data = run.task("load", {"data": 1})["data"]
    run.task("join", {"both": 2}, {"right": data, "left": data})
    run.end()
    assert [found.input for found in lab.synced().lineage("a1/join/both").edges] == ["left, right"]


# --- how it is shown --------------------------------------------------------------------------------------------------


def test_the_mermaid_text_is_as_it_always_was(lab: Lab) -> None:
    refs = lab.training("a1")
    run = lab.run("b1", pipeline="scoring")
    gone = lab.commit("calendars/holidays", 1)
    lab.store.delete("calendars/holidays")
    run.task("score", {"scores": 1}, {"model": refs["best"], "calendar": gone}, type="pandas.DataFrame")
    run.end()
    assert lab.synced().lineage("a1/select/best").to_mermaid() == (GOLDEN / "two_runs.mmd").read_text()
    assert lab.synced().lineage("b1/score/scores").to_mermaid() == (GOLDEN / "missing.mmd").read_text()
    assert lab.synced().lineage("a1/report/page").to_mermaid() == (GOLDEN / "training.mmd").read_text()


def test_the_tree_is_as_it_always_was(lab: Lab) -> None:
    lab.training("a1")
    assert lab.synced().lineage("a1/select/best").to_text() + "\n" == (GOLDEN / "training.txt").read_text()


def test_two_engines_give_the_same_picture_of_the_same_run(new_lab: Callable[[], Lab]) -> None:
    pictures = []
    for engine, order in (("inline", (0, 1, 2)), ("prefect", (2, 0, 1))):
        lab = new_lab()
        run = lab.run(f"run on {engine}", orchestrator=engine)
        data = run.task("load", {"data": 1})["data"]
        made = {index: run.task("train", {"model": index}, {"rows": data}, map_index=index)["model"] for index in order}
        run.task("select", {"best": 2}, {"models": [made[index] for index in range(3)]})
        run.end()
        graph = lab.synced().lineage(f"run on {engine}/select/best")
        pictures.append((graph.to_mermaid(), graph.to_text(), re.sub("<title>.*</title>", "", graph.to_svg())))
    assert pictures[0] == pictures[1]


@given(graph=graphs(), seed=st.integers())
def test_the_order_in_which_it_is_found_does_not_show(graph: LineageGraph, seed: int) -> None:
    chance = random.Random(seed)
    nodes, edges = list(graph.nodes), list(graph.edges)
    chance.shuffle(nodes)
    chance.shuffle(edges)
    assert LineageGraph.of(graph.focus, nodes, edges) == graph


@given(graph=graphs())
def test_parents_stand_before_their_children(graph: LineageGraph) -> None:
    place = {found.id: index for index, found in enumerate(graph.nodes)}
    assert all(place[link.parent] < place[link.child] for link in graph.edges)


@given(graph=graphs())
def test_json_has_every_node_and_edge(graph: LineageGraph) -> None:
    read = json.loads(graph.to_json())
    assert read == graph.to_dict()
    assert (len(read["nodes"]), len(read["edges"])) == (len(graph.nodes), len(graph.edges))


def test_a_graph_with_a_cycle_is_shown_all_the_same() -> None:
    graph = LineageGraph.of("b", [node("a"), node("b"), node("c")], [edge("a", "b"), edge("b", "c"), edge("c", "a")])
    assert "(see above)" in graph.to_text()
    assert graph.to_mermaid().count("-->") == 3
    ET.fromstring(graph.to_svg())


def test_a_long_chain_is_shown_without_recursion() -> None:
    names = [f"n{index:04d}" for index in range(3000)]
    graph = LineageGraph.of(names[0], map(node, names), map(edge, names, names[1:]))
    assert graph.to_text().count("└── ") == 2999


@given(name=st.text(min_size=1, max_size=40))
def test_any_name_can_be_shown(name: str) -> None:
    graph = LineageGraph.of(
        "a", [node("a", name=name, step=name, run_id=name), node("b", run_id="other")], [edge("a", "b")]
    )
    ET.fromstring(graph.to_svg())
    lines = graph.to_mermaid().splitlines()
    assert len(lines) == 9
    labels = [line.partition("[")[2] for line in lines[1:7] if "[" in line]
    assert all(re.fullmatch(r'"[^"`%\\]*"\](:::\w+)?', label) for label in labels)


def test_characters_that_mermaid_takes_for_itself_become_entities() -> None:
    graph = LineageGraph.of("a", [node("a", name='1. *all* of "<b>" & `50 %`; #1 __x__ test_set')], [])
    assert (
        'n1["1#46; #42;all#42; of #34;#60;b#62;#34; #38; #96;50 #37;#96;; #35;1 #95;#95;x#95;#95; test_set<br/>'
        in graph.to_mermaid()
    )


# --- the picture ------------------------------------------------------------------------------------------------------


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of every box."""
    found = []
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        place = re.fullmatch(r"translate\((\S+) (\S+)\)", group.attrib["transform"])
        box = group.find(f"{SVG}rect")
        assert place is not None
        assert box is not None
        left, top = map(float, place.groups())
        found.append((left, top, left + float(box.attrib["width"]), top + float(box.attrib["height"])))
    return found


@given(graph=graphs())
def test_no_two_boxes_overlap_and_all_are_inside(graph: LineageGraph) -> None:
    svg = graph.to_svg()
    found = boxes(svg)
    assert len(found) == len(graph.nodes)
    wide, high = (float(ET.fromstring(svg).attrib[name]) for name in ("width", "height"))
    assert all(left >= 0 and top >= 0 and right <= wide and bottom <= high for left, top, right, bottom in found)
    for index, one in enumerate(found):
        for other in found[:index]:
            assert one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]


@given(graph=graphs())
def test_edges_go_from_left_to_right_and_end_at_boxes(graph: LineageGraph) -> None:
    svg = graph.to_svg()
    at = dict(zip((found.id for found in graph.nodes), boxes(svg), strict=True))
    paths = [path.attrib["d"] for path in ET.fromstring(svg).iter(f"{SVG}path") if "edge" in path.get("class", "")]
    assert len(paths) == len(graph.edges)
    for link, path in zip(graph.edges, paths, strict=True):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", path)]
        (start, end), (parent, child) = (numbers[:2], numbers[-2:]), (at[link.parent], at[link.child])
        assert start == pytest.approx([parent[2], (parent[1] + parent[3]) / 2], abs=0.11)
        assert end == pytest.approx([child[0], (child[1] + child[3]) / 2], abs=0.11)
        assert start[0] < end[0]


def test_the_siblings_of_a_mapped_step_stand_in_one_column(lab: Lab) -> None:
    run = lab.run("wide")
    data = run.task("load", {"data": 1})["data"]
    made = [run.task("train", {"model": index}, {"rows": data}, map_index=index)["model"] for index in range(60)]
    run.task("select", {"best": 1}, {"models": made})
    run.end()
    svg = lab.synced().lineage("wide/select/best").to_svg()
    assert len({left for left, *_ in boxes(svg)}) == 3
    assert len(boxes(svg)) == 62


def test_the_picture_needs_nothing_else(lab: Lab) -> None:
    lab.training("a1")
    svg = lab.synced().lineage("a1/report/page").to_svg()
    assert re.findall(r'(?:href|src)="|url\((?!#)|<script|@import', svg) == []
    assert svg.count("http") == 1  # the name space


def test_a_long_name_keeps_its_end(lab: Lab) -> None:
    name = "predictions of the nightly model for region 7.csv"
    lab.commit(f"made/{name}", 1)
    svg = lab.synced().lineage(lab.store.ref(f"made/{name}").id).to_svg()
    assert "region 7.csv" in svg
    assert "…" in svg
