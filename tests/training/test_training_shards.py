"""Shards of phantoms: same bytes whoever makes them, resumable, honest."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from asl_bids_app.errors import InputError
from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.data import shards
from asl_bids_app.training.data.shards import (
    generate,
    load_shard,
    read_manifest,
    shard_name,
    verify,
)
from asl_bids_app.training.phantoms.drawing import CONDITIONS, draw
from asl_bids_app.training.whole_files import derive_seed

SMALL = PhantomConfig(size=32, smallest_brain=20)


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.npz")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three shards made in one go."""
    folder = tmp_path_factory.mktemp("whole")
    generate(SMALL, folder, 40, seed=7, shard_size=16)
    return folder


def test_manifest_tells_the_truth(whole):
    manifest = read_manifest(whole)
    assert manifest.complete
    assert [s.phantoms for s in manifest.shards] == [16, 16, 8]
    assert {s.name: s.sha256 for s in manifest.shards} == hashes(whole)
    content = json.loads((whole / "manifest.json").read_text())
    assert content["seed"] == 7
    assert content["config"]["size"] == 32
    assert sum(content["conditions"].values()) == 40
    codes = np.concatenate([np.load(whole / s.name)["condition"] for s in manifest.shards])
    counted = {name: int((codes == i).sum()) for i, name in enumerate(CONDITIONS)}
    assert counted == content["conditions"]
    verify(whole)


@pytest.mark.slow
def test_same_bytes_by_any_number_of_workers(whole, tmp_path):
    generate(SMALL, tmp_path / "two", 40, seed=7, shard_size=16, workers=2)
    assert hashes(tmp_path / "two") == hashes(whole)


def test_same_bytes_by_any_number_of_threads_and_others_by_another_seed(whole, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        generate(SMALL, tmp_path / "threads", 40, seed=7, shard_size=16)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert hashes(tmp_path / "threads") == hashes(whole)
    generate(SMALL, tmp_path / "seed", 16, seed=8, shard_size=16)
    assert hashes(tmp_path / "seed")[shard_name(0)] != hashes(whole)[shard_name(0)]


def test_shards_of_an_array_job_add_up(whole, tmp_path):
    generate(SMALL, tmp_path, 40, seed=7, shard_size=16, shards=[2])
    with pytest.raises(InputError, match="found 8 phantoms, expected 40 phantoms"):
        read_manifest(tmp_path)
    manifest = generate(SMALL, tmp_path, 40, seed=7, shard_size=16, shards=[0, 1])
    assert manifest.complete
    assert hashes(tmp_path) == hashes(whole)
    assert read_manifest(tmp_path).digest == read_manifest(whole).digest
    with pytest.raises(ValueError, match="expected numbers from 0 to 2"):
        generate(SMALL, tmp_path, 40, seed=7, shard_size=16, shards=[3])


def test_shard_holds_the_phantoms_in_half_precision(whole):
    stored = load_shard(whole / shard_name(1))
    drawn = draw(SMALL, 16, derive_seed(7, "phantoms", 1))
    assert stored.cbf.dtype == torch.float32
    # Half precision has 11 bits.
    torch.testing.assert_close(stored.cbf, drawn.cbf, rtol=2**-11, atol=1e-6)
    torch.testing.assert_close(stored.att, drawn.att, rtol=2**-11, atol=1e-6)
    assert torch.equal(stored.tissue, drawn.tissue)
    assert torch.equal(stored.condition, drawn.condition)


def test_resume_after_kill(whole, tmp_path, monkeypatch):
    make = shards._make

    def killed(config, path, number, count, seed):
        if number == 1:
            raise KeyboardInterrupt
        return make(config, path, number, count, seed)

    monkeypatch.setattr(shards, "_make", killed)
    with pytest.raises(KeyboardInterrupt):
        generate(SMALL, tmp_path, 40, seed=7, shard_size=16)
    monkeypatch.undo()
    first = tmp_path / shard_name(0)
    assert first.exists()
    assert not (tmp_path / "manifest.json").exists()
    # What a kill in the middle of writing leaves behind.
    (tmp_path / f".{shard_name(1)}.99999.tmp").write_bytes(b"half")
    made = first.stat().st_mtime_ns
    generate(SMALL, tmp_path, 40, seed=7, shard_size=16)
    assert hashes(tmp_path) == hashes(whole)
    assert made == first.stat().st_mtime_ns
    assert not list(tmp_path.glob(".*.tmp"))


def test_damaged_shard_is_made_again(whole, tmp_path):
    generate(SMALL, tmp_path, 40, seed=7, shard_size=16)
    path = tmp_path / shard_name(1)
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"chunk_00001.npz: sha256: found"):
        verify(tmp_path)
    kept = (tmp_path / shard_name(0)).stat().st_mtime_ns
    generate(SMALL, tmp_path, 40, seed=7, shard_size=16)
    assert hashes(tmp_path) == hashes(whole)
    assert (tmp_path / shard_name(0)).stat().st_mtime_ns == kept


def test_other_settings_are_refused(tmp_path):
    generate(SMALL, tmp_path, 16, seed=7, shard_size=16)
    with pytest.raises(InputError, match="seed: found 7, expected 8"):
        generate(SMALL, tmp_path, 16, seed=8, shard_size=16)
    with pytest.raises(InputError, match="settings"):
        generate(replace(SMALL, mosaic=0.5), tmp_path, 16, seed=7, shard_size=16)
    with pytest.raises(InputError, match="phantoms: found 16, expected 10"):
        generate(SMALL, tmp_path, 10, seed=7, shard_size=16)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(InputError, match="manifest"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="unreadable"):
        read_manifest(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"not an archive")
    with pytest.raises(InputError, match="shard of phantoms"):
        load_shard(tmp_path / "bad.npz")


def test_half_a_million_fit_into_15_gb(tmp_path):
    """Size is nearly linear in the number: arrays of fixed size, compressed one by one."""
    manifest = generate(PhantomConfig(), tmp_path, 32, seed=0, shard_size=32)
    overhead = 2500  # names and headers of the archive, once a shard
    per_phantom = (manifest.shards[0].size - overhead) / 32
    assert 500_000 * per_phantom < 15e9
    assert manifest.shards[0].size == (tmp_path / shard_name(0)).stat().st_size
