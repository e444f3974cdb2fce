import base64
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from idal_assets.plots.style import chart, new_figure, png_bytes
from idal_assets.report.cards import CaseCard
from idal_assets.report.html import (
    KEPT,
    REMOVED,
    MatrixCells,
    Picture,
    ReportContent,
    ReportSection,
    ReportTable,
    ReviewTable,
    render_report,
)
from idal_assets.steps.evidence import Evidence, verdict
from idal_assets.steps.methods import short_length
from idal_assets.steps.report import cautions, summary
from idal_assets.steps.similarity import contradiction_sentences, decision_sentences

pytestmark = pytest.mark.unit

PLACES = ["title", "summary", "fact", "section", "text", "cell", "picture", "head", "card"]
ATTACK = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Collects tags with their attributes, and cells with their text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.cells: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append((dict(attrs).get("class", ""), ""))
        if tag not in ("img", "meta", "input", "path", "use", "image", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            kind, text = self.cells[-1]
            self.cells[-1] = (kind, text + data.strip())


def content(*sections: ReportSection, **more) -> ReportContent:
    return ReportContent("Report", "Nothing helps.", "Nothing changed.", sections, **more)


def table_page(columns, rows) -> Page:
    table = ReportTable("A table", columns, rows)
    return Page(render_report(content(ReportSection("Part", "part", tables=[table]))))


def test_tags_are_balanced_and_contents_lead_to_sections():
    page = Page(render_report(content(ReportSection("One", "one"), ReportSection("Two", "two"))))
    assert page.open == []
    targets = [x["href"] for tag, x in page.tags if tag == "a"]
    ids = {"#" + x["id"] for _, x in page.tags if "id" in x}
    assert targets == ["#headline", "#one", "#two", "#how-to-read"]
    assert set(targets) <= ids


def test_pictures_are_embedded_whole_and_nothing_is_fetched():
    pngs = [png_bytes(new_figure(1, size)) for size in (1, 2, 3)]
    sections = [
        ReportSection("One", "one", pictures=[Picture("first", pngs[0], "caption one")]),
        ReportSection("Two", "two", pictures=[Picture("second", x, "caption two") for x in pngs[1:]]),
    ]
    text = render_report(content(*sections))
    page = Page(text)
    sources = [x["src"] for tag, x in page.tags if tag == "img"]
    prefix = "data:image/png;base64,"
    assert [base64.b64decode(x.removeprefix(prefix)) for x in sources] == pngs
    assert "caption one" in text
    assert not {"link", "iframe"} & {tag for tag, _ in page.tags}
    assert [x for tag, x in page.tags if tag == "script"] == [{}]
    # A colon or a parenthesis is not a letter of base64, so pictures cannot match.
    assert not re.search(r"https?:|url\(|@import|://", text)


@pytest.mark.parametrize("place", PLACES)
def test_text_is_inert_wherever_it_stands(place):
    words = dict.fromkeys(PLACES, "x")
    words[place] = ATTACK
    picture = Picture(words["picture"], png_bytes(new_figure(1, 1)), words["picture"])
    table = ReportTable(words["head"], [words["head"]], [[words["cell"]]], words["head"])
    facts = [(words["fact"], words["fact"])]
    card = CaseCard(words["card"], words["card"], [words["card"]], [(words["card"], words["card"])])
    review = ReviewTable([words["card"]], [[words["card"]]], {words["card"]: {"decision": words["card"]}}, "x")
    section = ReportSection(words["section"], "part", words["text"], [table], [picture], [card], review, facts)
    text = render_report(ReportContent(words["title"], words["summary"], words["summary"], [section]))
    page = Page(text)
    assert "&lt;script&gt;" in text
    # the page's own, and no other
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert [x.get("onerror") for tag, x in page.tags if tag == "img"] == [None]


def test_charts_are_drawn_in_the_page_and_share_no_name():
    figure = new_figure(2, 2)
    figure.subplots().plot([0, 1], [0, 1], clip_on=True)
    svg = chart(figure, "svg")
    cells = MatrixCells(["<row>"], ["column"], [[None]])
    pictures = [Picture("one", svg, "x", cells), Picture("two", svg.replace(b"#1f77b4", b"#000000"), "x")]
    text = render_report(content(ReportSection("One", "one", pictures=pictures)))
    assert text.count("<svg") == 2
    assert "<?xml" not in text
    names = re.findall(r'\bid="([\w-]+)"', text)
    assert len(names) == len(set(names))
    assert set(re.findall(r"url\(#([\w-]+)\)", text)) <= set(names)
    assert "&lt;row&gt;" in text


def test_case_ids_lead_to_their_pages():
    table = ReportTable("A table", ["case"], [["a"], ["b"]])
    section = ReportSection("Part", "part", tables=[table])
    page = Page(render_report(content(section, case_pages={"a": "cases/a.html"})))
    assert [x["href"] for tag, x in page.tags if tag == "a" and x["href"].startswith("cases")] == ["cases/a.html"]


def test_minus_signs_stand_before_numbers_and_nowhere_else():
    page = table_page(["case", "change"], [["phantom-01", "-0.024 to +0.000"]])
    assert [text for _, text in page.cells[2:]] == ["phantom-01", "−0.024 to +0.000"]


def test_numbers_are_aligned_and_missing_ones_are_a_dash():
    page = table_page(
        ["case", "dice", "change", "cases"],
        [["a", 0.81234, "+0.0483", 5], ["b", float("nan"), "-0.0072", np.int64(7)], ["c", None, None, 0]],
    )
    heads, *rows = (page.cells[i : i + 4] for i in range(0, 16, 4))
    assert [kind for kind, _ in heads] == ["", "number", "number", "number"]
    assert [[text for _, text in row] for row in rows] == [
        ["a", "0.812", "+0.0483", "5"],
        ["b", "–", "−0.0072", "7"],
        ["c", "–", "–", "0"],
    ]
    assert {kind for row in rows for kind, _ in row[1:]} == {"number"}


def test_a_column_with_words_is_not_numeric():
    page = table_page(["mixed", "flag"], [[1.5, True], ["many", False]])
    assert page.cells == [("", "mixed"), ("", "flag"), ("", "1.500"), ("", "yes"), ("", "many"), ("", "no")]


def test_shares_are_numeric_and_what_is_never_known_is_not():
    page = table_page(["share", "never"], [["46%", None], ["5%", None]])
    assert page.cells[:4] == [("number", "share"), ("", "never"), ("number", "46%"), ("", "–")]


def test_kept_and_removed_cells_are_marked():
    page = table_page(["case", "worst 5"], [["a", REMOVED], ["b", KEPT]])
    assert ("removed", "removed") in page.cells
    assert ("kept", "kept") in page.cells


def test_an_empty_table_says_so():
    page = table_page(["case", "reason"], [])
    assert page.cells[-1] == ("empty", "none")


def test_paragraphs_are_apart_and_notes_stand_at_the_end():
    text = render_report(content(ReportSection("Part", "part", "First.\n\nSecond.")))
    assert re.search(r"<p>First\.</p>\s*<p>Second\.</p>", text)
    notes = text[text.index('id="how-to-read"') :]
    for words in ("both are empty it is not defined", "new minus old", "random removals", "optimistic"):
        assert words in re.sub(r"\s+", " ", notes)


SETS = pd.Series(["all", "worst_1", "worst_2", "worst_cluster"])


def evidence(full=0.5, warnings=(), **claims):
    """What is found where a column `gain` or `harm` is true for some sets."""
    effects = pd.DataFrame(
        {
            "removal_set": SETS,
            "removed": [0, 1, 2, 0],
            "mean_dice": [full, 0.51, 0.48, 0.7],
            "mean_difference": [0.0, 0.01, -0.02, 0.2],
            "sentence": [f"what follows of {name}" for name in SETS],
            **{claim: SETS.isin(claims.get(claim, ())) for claim in ("gain", "harm")},
        }
    )
    return Evidence(effects, pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), list(warnings))


def test_a_set_that_removes_nothing_is_no_reduction():
    text = summary(evidence(), pd.DataFrame({"case_id": list("cabde")}), "mean of WT, TC and ET")
    assert "With all 5 donors the mean Dice of the test cases (mean of WT, TC and ET, as far as the label" in text
    assert "is 0.500; what follows of worst_2." in text
    assert "lowest scores are c, a, b." in text
    assert "worst_cluster" not in text


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({}, "No removal is shown to help."),
        ({"gain": ["worst_1"]}, "Removing donors helps: worst_1."),
        ({"gain": ["worst_1"], "harm": ["worst_2"]}, "Removing donors helps: worst_1."),
        ({"harm": ["worst_1", "worst_2"]}, "No removal is shown to help, and worst_1, worst_2 do harm."),
    ],
)
def test_the_verdict_claims_what_is_shown_and_no_more(claims, said):
    assert verdict(evidence(**claims), 0.5) == said


def test_where_nothing_was_learned_nothing_follows():
    found = evidence(full=0.09, gain=["worst_1"], warnings=["a rare kind leaves: details"])
    assert verdict(found, 0.5) == "Nothing follows: the networks have not learned to segment (mean Dice 0.09)."
    said = cautions(found, 0.5)
    assert "the mean Dice of the test cases is 0.09, below 0.50" in said[0]
    assert said[1:] == ["Beware: a rare kind leaves."]
    assert cautions(evidence(), 0.5) == []


DECISION = {
    "settled": [],
    "resamples": 50,
    "rank_correlation": 0.913,
    "reason": "lowest score of 9",
    "outliers": [],
}


def test_the_decision_is_told_with_its_stability():
    told = {**DECISION, "worst_cluster": ["b", "a"], "adjusted_rand_index": 0.876, "outliers": ["b"]}
    assert decision_sentences(told).startswith(
        "1 of the donors score lower than the spread of the others explains (b); a removal set takes as many as "
        "it is told to. Worst cluster: b, a (lowest score of 9). Where the receivers are drawn anew 50 times, the "
        "clusters agree by an adjusted Rand index of 0.88 and rankings correlate by 0.91 on average (Spearman); 1 "
        "is the same. Half of the score is not drawn anew"
    )
    assert decision_sentences({**told, "settled": ["a", "c"]}).endswith(
        "a, c, whose places were open, were trained to the end and share out by that the places that they had."
    )


def test_a_decision_for_no_cluster_is_told_too():
    told = {**DECISION, "worst_cluster": [], "adjusted_rand_index": None, "reason": "no cluster stands out"}
    assert decision_sentences(told).startswith(
        "0 of the donors score lower than the spread of the others explains; a removal set takes as many as it is "
        "told to. Worst cluster: none (no cluster stands out). Where the receivers are drawn anew 50 times, "
        "rankings correlate by 0.91 on average (Spearman)"
    )


def test_labels_that_lack_what_others_find_are_listed():
    assert contradiction_sentences({}) == "No label lacks what the models of the other donors find."
    told = contradiction_sentences({"a": "no tumour; 19 models see 1.2 ml", "b": "no rim; 19 models see 3 ml"})
    assert told.endswith("a, label: no tumour; 19 models see 1.2 ml. b, label: no rim; 19 models see 3 ml.")


def test_a_paper_says_how_long_was_trained_where_trainings_stop_early():
    full = {"case_model": {"epochs": 4, "iterations_per_epoch": 15}}
    assert short_length(full, 0) == "60 iterations"
    for usual in {}, {"early_stop.faster": 1.0}:
        assert short_length({**full, "early_stop.share": 0.15, **usual}, 0) == "9 of 60 iterations"
    early = {**full, "early_stop.share": 0.15, "early_stop.faster": 3.0}
    said = "9 of 60 iterations at 3 times the learning rate"
    assert short_length(early, 0) == said
    assert short_length(early, 2) == f"{said}; all of them for the 2 whose place among the removed was open"
