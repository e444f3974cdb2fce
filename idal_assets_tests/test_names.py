"""Names of cases, whatever they are: refused by the check with a remedy, or good for every file of that name."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from idal_assets.imaging.case import CaseError
from idal_assets.imaging.raw_folder import LONGEST_ID, RawFolder
from idal_assets.imaging.readers import scan_raw_folder
from idal_assets.store.artifacts import Inputs, build, find_damage, read_provenance
from idal_assets.store.layout import DataFolder
from idal_assets.study.graph import GRAPH
from idal_assets_tests.raw_folders import msd_entry, write_json
from idal_assets_tests.test_cli import call

pytestmark = pytest.mark.unit

ODD = ("..", "-rf", "a;rm -rf b", "%2e%2e", "a\x00b", "a\nb", "<script>", "CON", "a..b", " ", "Größe", '"', "a:b")
SAFE = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", fullmatch=True).filter(lambda name: ".." not in name)
META = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "organ"}}


def with_case(raw: Path, name: str) -> RawFolder:
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
        # some no disk has, only dataset.json
        with suppress(OSError, ValueError):
            (raw / folder / f"{name}.nii.gz").touch()
    write_json(raw, {**META, "training": [msd_entry(name)]})
    return scan_raw_folder(raw)


@given(st.text(min_size=1, max_size=60) | st.text("ab", min_size=190, max_size=300) | st.sampled_from(ODD))
def test_every_name_is_refused_with_a_remedy_or_usable(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    try:
        found = with_case(tmp_path_factory.mktemp("raw"), name)
    except CaseError as error:
        assert str(error)
        return
    if found.cases:
        (case,) = found.cases
        assert len(case.case_id) <= LONGEST_ID
        assert (
            DataFolder(Path("/data")).artifact("raw_case", case.case_id) == Path("/data/raw_case") / case.case_id
        )
    else:
        assert all(problem.remedy for problem in found.problems if problem.severity == "error")
        assert found.problems


@given(SAFE)
@example("a" * LONGEST_ID)
def test_a_name_that_is_accepted_names_every_file(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = DataFolder(tmp_path_factory.mktemp("data"))
    longest = max((node.name for node in GRAPH.values() if node.partition), key=len)
    inputs = Inputs(code="1", settings={}, made_from={})

    def work(draft: Path) -> None:
        (draft / f"{name}.nii.gz").write_bytes(b"segmentation")

    for code in ("1", "2"):
        again = inputs.model_copy(update={"code": code})
        place = folder.artifact(longest, name)
        assert build(place, longest, name, again, work, folder.unfinished, folder.locks)[1]
        assert read_provenance(place)
        assert find_damage(place) is None


@pytest.mark.parametrize("length", [LONGEST_ID + 1, 248, 300, 5000])
def test_a_name_that_is_too_long_is_refused_before_anything_runs(tmp_path: Path, length: int) -> None:
    found = with_case(tmp_path, "a" * length)
    assert not found.cases
    (problem,) = [problem for problem in found.problems if problem.severity == "error"]
    assert f"case id has {length} letters" in problem.what
    assert f"{LONGEST_ID} letters at most" in problem.remedy
    code, output = call("check", tmp_path)
    assert code == 1
    assert "Traceback" not in output
