"""An anatomy is sound or refused by name, and a profile changes names and scores, never values."""

import pytest

from idal_assets.anatomy import COLOURS, Anatomy, AnatomyError
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.settings import AnatomySettings

pytestmark = pytest.mark.unit

HIPPOCAMPUS = Anatomy.of(["MRI"], {1: "Anterior", 2: "Posterior"})
REGIONAL = Anatomy.of(
    ["T1", "T2"],
    {1: "rim", 2: "label 2", 3: "core"},
    {"whole": [3, 1, 2], "inside": [2, 3], "core": [3]},
    class_order=[1, 2, 3],
    ignore=4,
)
EXAMPLES = {"brain tumour": BRAIN_TUMOUR, "hippocampus": HIPPOCAMPUS, "regional": REGIONAL}


def changed(anatomy: Anatomy, **settings: object) -> Anatomy:
    return anatomy.with_settings(AnatomySettings.model_validate(settings))


class TestDescription:
    def test_without_regions_the_labels_are_scored(self):
        assert dict(HIPPOCAMPUS.regions) == {"Anterior": (1,), "Posterior": (2,)}
        assert HIPPOCAMPUS.composites == HIPPOCAMPUS.singles == ("Anterior", "Posterior")
        assert (HIPPOCAMPUS.trained, HIPPOCAMPUS.class_order, HIPPOCAMPUS.ignore) == ((), (), None)
        assert HIPPOCAMPUS.size == 3
        assert dict(HIPPOCAMPUS.colours) == {1: COLOURS[0], 2: COLOURS[1]}

    def test_declared_regions_are_trained_and_stand_before_the_labels(self):
        assert list(REGIONAL.regions) == ["whole", "inside", "core", "rim", "label 2"]
        assert REGIONAL.regions["whole"] == (1, 2, 3)
        assert REGIONAL.composites == REGIONAL.trained == ("whole", "inside", "core")
        assert REGIONAL.singles == ("rim", "label 2", "core")
        assert (REGIONAL.class_order, REGIONAL.ignore, REGIONAL.size) == ((1, 2, 3), 4, 4)

    def test_labels_are_sorted_and_colours_are_taken_again(self):
        many = Anatomy.of(["CT"], {value: f"organ {value}" for value in range(10, 0, -1)})
        assert list(many.labels) == list(range(1, 11))
        assert many.colours[9] == many.colours[1]

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_it_survives_json(self, name: str):
        anatomy = EXAMPLES[name]
        read = Anatomy.model_validate_json(anatomy.model_dump_json())
        assert read == anatomy
        assert list(read.regions) == list(anatomy.regions)
        assert read.version == anatomy.version

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_a_profile_that_says_nothing_changes_nothing(self, name: str):
        assert EXAMPLES[name].with_settings(AnatomySettings()) == EXAMPLES[name]
        assert list(changed(EXAMPLES[name]).regions) == list(EXAMPLES[name].regions)

    @pytest.mark.parametrize(
        ("description", "message"),
        [
            ({"channels": []}, "there is no channel"),
            ({"channels": ["T1", "T1"]}, "channel name 'T1' is there twice"),
            ({"channels": ["T1\n"]}, r"channel name 'T1\\n' cannot be printed"),
            ({"labels": {}}, r"label values are \[\]"),
            ({"labels": {1: "a", 3: "b"}}, r"label values are \[1, 3\].*without a gap"),
            ({"labels": {0: "a", 1: "b"}}, r"label values are \[0, 1\]"),
            ({"labels": {1: "a", 2: "a"}}, "label name 'a' is there twice"),
            ({"labels": {1: " "}}, "label name ' ' cannot be printed"),
            ({"labels": {1: "mean"}}, "'mean' is the name of the scalar"),
            ({"labels": {1: "regions"}}, "'regions' is what the scalar may average"),
            ({"labels": {1: "Background"}}, "'Background' is no name of a label"),
            ({"labels": {1: "a", 2: "ignore"}}, "'ignore' is no name of a label"),
            ({"ignore": 2}, "ignore has the value 2; it must be 3, the highest"),
            ({"ignore": 4}, "ignore has the value 4"),
            ({"declared": {"all": [1, 3]}}, r"region 'all' holds the values \[1, 3\]"),
            ({"declared": {"all": []}}, "region 'all' holds the values"),
            ({"declared": {"a": [1, 2]}}, "'a' is the name of a label and of another region"),
            ({"declared": {"labels": [1, 2]}}, "'labels' is what the scalar may average"),
            ({"declared": {"all": [1, 2]}, "class_order": [1, 2]}, "one label value for each of all"),
            ({"declared": {"all": [1, 2], "b": [2]}, "class_order": [1, 1]}, "'b' would write 1"),
            ({"class_order": [1]}, "one label value for each of the regions"),
        ],
    )
    def test_contradictions_are_refused_by_name(self, description: dict, message: str):
        with pytest.raises(AnatomyError, match=message):
            Anatomy.of(**{"channels": ["CT"], "labels": {1: "a", 2: "b"}, **description})

    def test_the_preset_is_sound(self):
        BRAIN_TUMOUR._ensure_sound()


class TestProfile:
    def test_channels_get_other_names(self):
        assert changed(HIPPOCAMPUS, channels=["CT"]).channels == ("CT",)

    def test_a_renamed_label_keeps_its_value_wherever_it_is_named(self):
        found = changed(REGIONAL, labels={3: "heart", 2: "soft part"})
        assert dict(found.labels) == {1: "rim", 2: "soft part", 3: "heart"}
        assert found.regions["heart"] == (3,)
        assert list(found.regions) == ["whole", "inside", "heart", "rim", "soft part"]
        assert found.composites == found.trained == ("whole", "inside", "heart")
        assert found.singles == ("rim", "soft part", "heart")
        assert found.class_order == (1, 2, 3)

    def test_two_labels_may_change_names(self):
        found = changed(HIPPOCAMPUS, labels={1: "Posterior", 2: "Anterior"})
        assert (found.regions["Posterior"], found.regions["Anterior"]) == ((1,), (2,))
        assert found.composites == found.singles == ("Posterior", "Anterior")

    def test_a_label_may_be_called_anything_that_can_be_printed(self):
        assert changed(HIPPOCAMPUS, labels={1: 'Kopf, "vorn" (80 %) / ä'}).singles[0] == 'Kopf, "vorn" (80 %) / ä'

    def test_the_preset_keeps_the_names_of_its_regions(self):
        found = changed(BRAIN_TUMOUR, labels={1: "oedema or swelling"})
        assert list(found.regions) == list(BRAIN_TUMOUR.regions)
        assert found.title("L1") == "oedema or swelling"
        assert found.title("ET") == "enhancing tumour"

    @pytest.mark.parametrize("members", [["Anterior", "Posterior"], [2, 1], ["Anterior", 2]])
    def test_an_added_region_is_scored(self, members: list):
        found = changed(HIPPOCAMPUS, regions={"all": members})
        assert list(found.regions.items()) == [("all", (1, 2)), ("Anterior", (1,)), ("Posterior", (2,))]
        assert found.composites == ("all",)
        assert found.singles == ("Anterior", "Posterior")
        assert found.trained == ()

    def test_an_added_region_joins_those_that_are_declared(self):
        found = changed(REGIONAL, regions={"outside": ["rim", "label 2"]})
        assert list(found.regions) == ["whole", "inside", "core", "outside", "rim", "label 2"]
        assert found.composites == ("whole", "inside", "core", "outside")
        assert found.trained == ("whole", "inside", "core")

    def test_in_other_settings_a_label_goes_by_its_new_name(self):
        found = changed(
            HIPPOCAMPUS,
            labels={1: "head"},
            regions={"all": ["head", "Posterior"]},
            scalar_regions=["head", "all"],
            titles={"head": "head of the hippocampus"},
            colours={"head": "#123456"},
        )
        assert found.composites == ("head", "all")
        assert found.title("head") == "head of the hippocampus"
        assert dict(found.colours) == {1: "#123456", 2: COLOURS[1]}

    def test_a_region_of_the_preset_names_its_label(self):
        found = changed(BRAIN_TUMOUR, regions={"rest": ["L1", "non-enhancing tumour"]}, colours={"L3": "#ffffff"})
        assert found.regions["rest"] == (1, 2)
        assert found.composites == ("WT", "TC", "ET", "rest")
        assert found.colours[3] == "#ffffff"

    def test_the_regions_that_the_scalar_averages_are_chosen(self):
        assert changed(BRAIN_TUMOUR, scalar_regions=["WT"]).composites == ("WT",)
        assert changed(REGIONAL, scalar_regions=["rim", "whole"]).composites == ("rim", "whole")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"channels": ["a", "b"]}, "anatomy.channels names 2 channels and the dataset has 1: MRI"),
            ({"labels": {3: "tail"}}, r"anatomy.labels names the values \[3\]; the dataset has \[1, 2\]"),
            ({"labels": {1: "Posterior"}}, "anatomy.labels: 'Posterior' is the name of another region"),
            ({"labels": {1: "mean"}}, "'mean' is the name of the scalar"),
            ({"labels": {1: "ignore"}}, "'ignore' is no name of a label"),
            ({"labels": {1: "\t"}}, "cannot be printed"),
            ({"regions": {"all": ["Anterior", "tail"]}}, r"anatomy.regions.all names .*'tail'.*1 \(Anterior\), 2"),
            ({"regions": {"all": [1, 3]}}, r"anatomy.regions.all names \[1, 3\]"),
            ({"regions": {"all": [0, 1]}}, r"anatomy.regions.all names \[0, 1\]"),
            ({"regions": {"all": []}}, r"anatomy.regions.all names \[\]"),
            ({"regions": {"Anterior": [1, 2]}}, "anatomy.regions.Anterior: the dataset has a region of this name"),
            ({"regions": {"mean": [1, 2]}}, "'mean' is the name of the scalar"),
            ({"labels": {1: "head"}, "regions": {"all": ["Anterior"]}}, r"1 \(head\), 2 \(Posterior\)"),
            (
                {"scalar_regions": ["tail"]},
                "anatomy.scalar_regions: there is no region 'tail'; there are Anterior, P",
            ),
            ({"scalar_regions": ["regions"]}, "there is no region 'regions'"),
            ({"scalar_regions": ["Anterior", "Anterior"]}, "averages 'Anterior' twice"),
            ({"titles": {"tail": "the tail"}}, "anatomy.titles: there is no region 'tail'"),
            ({"colours": {"tail": "#000000"}}, r"anatomy.colours names \['tail'\]"),
        ],
    )
    def test_what_there_is_not_is_refused_by_name(self, settings: dict, message: str):
        with pytest.raises(AnatomyError, match=message):
            changed(HIPPOCAMPUS, **settings)

    def test_a_label_does_not_take_the_name_of_a_region(self):
        with pytest.raises(AnatomyError, match="'WT' is the name of a label and of another region"):
            changed(BRAIN_TUMOUR, labels={1: "WT"})
        with pytest.raises(AnatomyError, match="'whole' is the name of another region"):
            changed(REGIONAL, labels={1: "whole"})


class TestScalar:
    def test_scored(self):
        assert BRAIN_TUMOUR.scored("regions") == ("WT", "TC", "ET")
        assert BRAIN_TUMOUR.scored("labels") == ("L1", "L2", "L3")
        assert BRAIN_TUMOUR.scored("WT") == ("WT",)
        assert HIPPOCAMPUS.scored("regions") == HIPPOCAMPUS.scored("labels") == ("Anterior", "Posterior")
        with pytest.raises(
            AnatomyError, match="no region 'WT' to score; take regions, labels or one of Anterior, P"
        ):
            HIPPOCAMPUS.scored("WT")

    def test_in_words(self):
        assert BRAIN_TUMOUR.in_words("regions") == "mean of WT, TC and ET"
        assert BRAIN_TUMOUR.in_words("labels") == "mean of the 3 labels"
        assert BRAIN_TUMOUR.in_words("WT") == "whole tumour"
        assert HIPPOCAMPUS.in_words("regions") == "mean of Anterior and Posterior"
        assert HIPPOCAMPUS.in_words("Anterior") == "Anterior"
        assert Anatomy.of(["CT"], {1: "liver"}).in_words("labels") == "liver"
        many = Anatomy.of(["CT"], {value: f"organ {value}" for value in range(1, 11)})
        assert many.in_words("regions") == "mean of the 10 labels"


class TestVersion:
    @pytest.mark.parametrize(
        "settings",
        [
            {"channels": ["CT"]},
            {"labels": {1: "head"}},
            {"regions": {"all": [1, 2]}},
            {"scalar_regions": ["Anterior"]},
        ],
    )
    def test_it_changes_with_networks_and_scores(self, settings: dict):
        assert changed(HIPPOCAMPUS, **settings).version != HIPPOCAMPUS.version

    def test_it_knows_training_and_ignored_voxels(self):
        labels, regions = {1: "a", 2: "b"}, {"all": [1, 2], "b": [2]}
        versions = {
            Anatomy.of(["CT"], labels, regions).version,
            Anatomy.of(["CT"], labels, regions, [1, 2]).version,
            Anatomy.of(["CT"], labels, regions, [2, 2]).version,
            Anatomy.of(["CT"], labels, regions, [1, 2], 3).version,
        }
        assert len(versions) == 4

    def test_it_knows_no_words_and_colours(self):
        found = changed(HIPPOCAMPUS, titles={"Anterior": "head"}, colours={"Anterior": "#000000"})
        assert found.version == HIPPOCAMPUS.version
        assert found.model_copy(update={"foreground": "hippocampus"}).version == HIPPOCAMPUS.version
