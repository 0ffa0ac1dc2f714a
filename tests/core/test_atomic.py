"""Files appear complete and on the disk, or not at all."""

import os

import pytest

from asl_bids_app.atomic import complete_file


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    path = tmp_path / "new" / "map.nii.gz"
    seen = []
    sync = os.fsync

    def watched(number):
        seen.append((path.exists(), os.fstat(number).st_size))
        sync(number)

    monkeypatch.setattr(os, "fsync", watched)
    with complete_file(path) as beside:
        assert beside.parent == path.parent
        assert beside.name.endswith(".nii.gz")
        beside.write_bytes(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert seen[0] == (False, 7)
    assert [each.name for each in path.parent.iterdir()] == ["map.nii.gz"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "map.nii.gz"
    path.write_bytes(b"old")

    def broken_off():
        with complete_file(path) as beside:
            beside.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_off()
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["map.nii.gz"]
