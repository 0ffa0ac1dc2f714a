"""Datasets of DataLad, git-annex and Git LFS of which some files have not been fetched."""

import pytest
from fake_bids import FakeDataset, runs_of

from asl_bids_app.anatomy.find import find_anatomy
from asl_bids_app.bids.layout import find_runs
from asl_bids_app.bids.sidecar import understand
from asl_bids_app.bids.unfetched import unfetched
from asl_bids_app.errors import InputError

KEY = "SHA256E-s1048576--9f86d081884c7d65.nii.gz"
SMALL = {"shape": (2, 2, 2), "repeats": 1}


def link(path):
    """A locked file, as a fresh clone has it."""
    path.unlink()
    path.symlink_to(f"../../.git/annex/objects/Xk/9z/{KEY}/{KEY}")


def pointer(path):
    """An unlocked file."""
    path.write_text(f"/annex/objects/{KEY}\n")


def link_as_text(path):
    """A locked file where git can't make links."""
    path.write_text(f"../../.git/annex/objects/Xk/9z/{KEY}/{KEY}")


def lfs(path):
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 1048576\n"
    )


CURES = {
    link: 'run "datalad get {}"',
    pointer: 'run "datalad get {}"',
    link_as_text: 'run "datalad get {}"',
    lfs: 'run "git lfs pull --include {}"',
}


@pytest.mark.parametrize("spoil", CURES)
@pytest.mark.parametrize("which", ["asl", "sidecar", "aslcontext", "m0scan", "m0_sidecar"])
def test_the_line_names_the_file_and_the_command(tmp_path, spoil, which):
    run = FakeDataset(tmp_path).add("01", **SMALL)
    path = getattr(run, which)
    spoil(path)
    name = path.relative_to(tmp_path).as_posix()
    with pytest.raises(InputError) as caught:
        understand(runs_of(tmp_path)[0])
    [line] = [text for text in str(caught.value).splitlines() if text.startswith(f"{name}:")][:1]
    assert f"Cure: {CURES[spoil].format(name)}" in line


def test_others_go_on(tmp_path):
    dataset = FakeDataset(tmp_path)
    link(dataset.add("01", **SMALL).asl)
    pointer(dataset.add("02", **SMALL).aslcontext)
    dataset.add("03", **SMALL)
    runs = find_runs(tmp_path).participants
    for label in ("01", "02"):
        with pytest.raises(InputError, match=r"datalad get sub-"):
            understand(runs[label][0])
    understand(runs["03"][0])


@pytest.mark.parametrize("spoil", CURES)
def test_a_t1w_is_left_out_with_a_warning(tmp_path, spoil):
    path = tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    path.touch()
    spoil(path)
    found = find_anatomy(tmp_path, {}, {"sub": "01"})
    assert found.t1w is None
    assert CURES[spoil].format(path) in found.warnings[0]


def test_links_elsewhere_name_their_target(tmp_path):
    path = tmp_path / "x.nii.gz"
    path.symlink_to("/scratch/gone/x.nii.gz")
    found = unfetched(path)
    assert found.found == "a broken link to /scratch/gone/x.nii.gz"
    assert "datalad" not in found.cure
    assert "mount" in found.cure


def test_names_with_blanks_can_be_pasted(tmp_path):
    path = tmp_path / "my data" / "x.nii.gz"
    path.parent.mkdir()
    pointer_text = f"/annex/objects/{KEY}\n"
    path.write_text(pointer_text)
    assert unfetched(path).cure == f"run \"datalad get '{path}'\""


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b/annex/objects/x", b"{}\n"])
def test_content_is_no_placeholder(tmp_path, content):
    path = tmp_path / "x"
    assert unfetched(path) is None
    path.write_bytes(content)
    assert unfetched(path) is None
    other = tmp_path / "link"
    other.symlink_to(path)
    assert unfetched(other) is None


def test_derivatives_that_were_not_fetched_are_left_for_what_is_there(tmp_path):
    raw = tmp_path / "bids" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    raw.parent.mkdir(parents=True)
    raw.write_bytes(b"x" * 5000)
    anat = tmp_path / "fp" / "sub-01" / "anat"
    anat.mkdir(parents=True)
    (anat / "sub-01_desc-preproc_T1w.nii.gz").symlink_to("../../.git/annex/objects/x")
    found = find_anatomy(tmp_path / "bids", {"fp": tmp_path / "fp"}, {"sub": "01"})
    assert found.t1w == raw
    assert "datalad get" in str(found.warnings[0])
    # Of a fetched T1w a mask that was not fetched is left out.
    (anat / "sub-01_desc-preproc_T1w.nii.gz").unlink()
    (anat / "sub-01_desc-preproc_T1w.nii.gz").write_bytes(b"x" * 5000)
    (anat / "sub-01_desc-brain_mask.nii.gz").symlink_to("../../.git/annex/objects/y")
    found = find_anatomy(tmp_path / "bids", {"fp": tmp_path / "fp"}, {"sub": "01"})
    assert found.prepared
    assert found.mask is None
    assert "datalad get" in str(found.warnings[0])
