"""Broken images are told in one line; odd ones are read with what is to be known of them."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from fake_bids import FakeDataset, runs_of

from asl_bids_app.bids.images import check_grid, load, read_header
from asl_bids_app.bids.sidecar import understand
from asl_bids_app.errors import InputError

AFFINE = np.diag([3.0, 3.0, 5.0, 1.0])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sub-01_asl.nii.gz"


def write(path, data, affine=AFFINE, dtype=np.float32):
    nib.Nifti1Image(np.asarray(data, dtype=dtype), affine).to_filename(path)
    return path


def series(n=4, shape=(5, 6, 7)):
    return np.random.default_rng(1).uniform(1, 2, (*shape, n)).astype(np.float32)


def fault(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_data_come_back(tmp_path, extension):
    data = series()
    image = load(write(tmp_path / f"a{extension}", data), ndim=4)
    np.testing.assert_array_equal(image.data, data)
    assert image.data.dtype == np.float32
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert image.zooms == (3.0, 3.0, 5.0)
    assert image.finite.shape == (5, 6, 7)
    assert image.finite.all()
    assert image.warnings == ()


def test_scaled_integers(path):
    image = nib.Nifti1Image(np.full((2, 2, 2), 10, dtype=np.int16), AFFINE)
    image.header.set_slope_inter(0.5, 3)
    image.to_filename(path)
    assert set(load(path).data.ravel()) == {10 * 0.5 + 3}


def test_nifti_2(path):
    nib.Nifti2Image(series(), AFFINE).to_filename(path)
    assert load(path, ndim=4).data.shape == (5, 6, 7, 4)


# Files


def test_missing(path):
    for call in (read_header, load):
        error = fault(call, path)
        assert (error.file, error.found, error.expected) == (
            str(path),
            "no such file",
            "a NIfTI image",
        )


def test_name_in_messages(path):
    assert fault(load, path, name="sub-01/perf/x").file == "sub-01/perf/x"


def test_broken_link(path):
    path.symlink_to(".git/annex/objects/aa/bb/key")
    error = fault(load, path)
    assert error.found == "a broken link to .git/annex/objects/aa/bb/key"
    assert "datalad get" in error.cure


@pytest.mark.parametrize(
    ("content", "found", "cure"),
    [
        (b"", "an empty file", "copy or convert"),
        (b"\0", "1 byte that are no NIfTI", "copy or convert"),
        (b"hello", "5 bytes that are no NIfTI", "copy or convert"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"),
        (b"/annex/objects/MD5E-s1--x.nii.gz\n", "a git-annex pointer", "datalad get"),
        (b"\x1f\x8b\x08garbage", "damaged gzip data", "copy or convert"),
        (gzip.compress(b"x" * 1000, mtime=0), "no readable header", "copy or convert"),
        (gzip.compress(b"", mtime=0), "no readable header", "copy or convert"),
    ],
)
@pytest.mark.parametrize("call", [read_header, load])
def test_no_image(path, content, found, cure, call):
    path.write_bytes(content)
    error = fault(call, path)
    assert error.file == str(path)
    assert error.found.startswith(found)
    assert error.expected == "a NIfTI image"
    assert cure in error.cure


def test_folder(path):
    path.mkdir()
    assert fault(load, path).found == "Is a directory"


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_truncated_gzip(path, keep):
    write(path, series(20))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    error = fault(load, path)
    assert error.found.startswith("image data that end early or are damaged")
    assert error.expected == "5 x 6 x 7 x 20 voxels of 3 x 3 x 5 mm"


def test_truncated_in_the_header(path):
    write(path, series())
    path.write_bytes(path.read_bytes()[:40])
    assert fault(read_header, path).found.startswith("damaged gzip data")


@pytest.mark.parametrize("size", [100, 352, 1000])
def test_truncated_plain_file(tmp_path, size):
    path = write(tmp_path / "a.nii", series())
    path.write_bytes(path.read_bytes()[:size])
    assert "bytes" in fault(load, path).found if size == 100 else fault(load, path).found


def test_flipped_bytes_in_gzip(path):
    write(path, series(20))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    assert fault(load, path).found.startswith("image data that end early or are damaged")


def test_wrong_extension(tmp_path):
    zipped, plain = write(tmp_path / "a.nii.gz", series()), write(tmp_path / "b.nii", series())
    zipped.rename(tmp_path / "c.nii")
    plain.rename(tmp_path / "d.nii.gz")
    assert fault(load, tmp_path / "c.nii").cure == "rename it to .nii.gz"
    assert fault(load, tmp_path / "d.nii.gz").cure == "rename it to .nii"


# Dimensions


def test_3d_instead_of_4d(path):
    write(path, np.ones((5, 6, 7)))
    error = fault(load, path, ndim=4)
    assert (error.field, error.found, error.expected) == ("dimensions", "3D (5 x 6 x 7)", "4D")
    assert load(path).data.shape == (5, 6, 7)


def test_4d_instead_of_3d(path):
    write(path, series(2))
    assert fault(load, path, ndim=3).found == "4D (5 x 6 x 7 x 2)"
    assert load(write(path, series(1)), ndim=3).data.shape == (5, 6, 7)
    assert load(path).data.shape == (5, 6, 7, 1)


def test_empty_trailing_dimensions(path):
    data = series(3)
    write(path, data[..., None])
    np.testing.assert_array_equal(load(path, ndim=4).data, data)


def test_5d(path):
    write(path, np.ones((3, 3, 3, 1, 2)))
    assert fault(read_header, path).found == "5D (3 x 3 x 3 x 1 x 2)"


@pytest.mark.parametrize(("dtype", "found"), [(np.complex64, "complex"), ("rgb", "colour")])
def test_values_that_are_no_magnitudes(path, dtype, found):
    if dtype == "rgb":
        dtype = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.Nifti1Image(np.zeros((3, 3, 3), dtype=dtype), AFFINE).to_filename(path)
    assert fault(load, path).found == f"{found} values"


# Values


def test_zeros_everywhere(path):
    write(path, np.zeros((3, 3, 3, 2)))
    assert fault(load, path).found == "only zeros"


def test_nan_everywhere(path):
    write(path, np.full((3, 3, 3), np.nan))
    assert fault(load, path).found == "only zeros and NaN"


def test_empty_volumes_are_named(path):
    data = series(6)
    data[..., 2] = 0
    data[..., 5] = np.nan
    write(path, data)
    error = fault(load, path)
    assert error.field == "volume 2, 5 (counted from 0)"
    assert error.expected == "signal in every volume"
    image = load(path, may_be_empty=(2, 5))
    assert image.finite.all()
    assert image.data[..., 5].max() == 0


def test_nan_voxels_are_left_out(path):
    data = series()
    data[0, 0, 0, :] = np.nan
    data[1, 2, 3, 1] = np.inf
    data[1, 2, 4, 1] = -np.inf
    image = load(write(path, data), name="x")
    expected = np.ones((5, 6, 7), dtype=bool)
    expected[0, 0, 0] = expected[1, 2, 3] = expected[1, 2, 4] = False
    np.testing.assert_array_equal(image.finite, expected)
    assert np.isfinite(image.data).all()
    assert image.data[1, 2, 3, 0] == data[1, 2, 3, 0]
    assert image.warnings == (
        "x: 3 of 210 voxels are NaN or infinite in some volume and are not used",
    )


def test_nan_somewhere_in_every_voxel(path):
    data = series()
    data[:3, ..., 0] = np.nan
    data[2:, ..., 1] = np.nan
    assert "every voxel" in fault(load, write(path, data)).found


# Geometry


@pytest.mark.parametrize(
    ("zooms", "units", "found", "cure"),
    [
        ((0.003, 0.003, 0.005), "meter", "0.003 x 0.003 x 0.005 mm", "the header says meter"),
        ((3000, 3000, 5000), "micron", "3e+03 x 3e+03 x 5e+03 mm", "the header says micron"),
        ((3, 3, 80), "mm", "3 x 3 x 80 mm", ""),
    ],
)
def test_voxel_size(path, zooms, units, found, cure):
    image = nib.Nifti1Image(np.ones((3, 3, 3)), np.diag([*zooms, 1]))
    image.header.set_xyzt_units(units)
    image.to_filename(path)
    error = fault(read_header, path)
    assert (error.field, error.found, error.expected) == ("voxel size", found, "0.2 to 50 mm")
    assert cure in error.cure


@pytest.mark.parametrize("bad", [np.nan, 0.0])
def test_affine(path, bad):
    image = nib.Nifti1Image(np.ones((3, 3, 3)), AFFINE)
    image.header["srow_x"] = [bad, 0, 0, 0]
    image.header["sform_code"] = 1
    image.to_filename(path.with_suffix(""))
    raw = bytearray(path.with_suffix("").read_bytes())
    raw[280:296] = np.array([bad, 0, 0, 0], dtype="<f4").tobytes()
    path.with_suffix("").write_bytes(bytes(raw))
    assert fault(read_header, path.with_suffix("")).field == "affine"


def test_no_orientation_is_told(path):
    nib.Nifti1Image(np.ones((3, 3, 3)), None).to_filename(path)
    (warning,) = read_header(path).warnings
    assert "neither qform nor sform" in warning


def test_pixdim_that_contradicts_the_affine_is_told(path):
    image = nib.Nifti1Image(np.ones((3, 3, 3)), AFFINE)
    image.header["pixdim"][1:4] = 1
    image.to_filename(path.with_suffix(""))
    raw = bytearray(path.with_suffix("").read_bytes())
    raw[80:92] = np.ones(3, dtype="<f4").tobytes()
    path.with_suffix("").write_bytes(bytes(raw))
    header = read_header(path.with_suffix(""))
    assert header.zooms == (3.0, 3.0, 5.0)
    assert "pixdim: found 1 x 1 x 1 mm" in header.warnings[0]


# Grids


def grid(tmp_path, name, shape, affine):
    return read_header(write(tmp_path / f"{name}.nii", np.ones(shape), affine))


def test_equal_grids(tmp_path):
    asl = grid(tmp_path, "asl", (10, 10, 10, 2), AFFINE)
    rounded = AFFINE.copy()
    rounded[:3, 3] += 1e-4
    assert check_grid(grid(tmp_path, "m0", (10, 10, 10), rounded), asl).equal


@pytest.mark.parametrize("shift", [0.2, 3.0])
def test_shifted_grid_is_another(tmp_path, shift):
    asl = grid(tmp_path, "asl", (10, 10, 10, 2), AFFINE)
    shifted = AFFINE.copy()
    shifted[0, 3] = shift
    got = check_grid(grid(tmp_path, "m0", (10, 10, 10), shifted), asl)
    assert not got.equal
    assert 0.85 < got.overlap <= 1.0


def test_flipped_grid_of_the_same_place(tmp_path):
    asl = grid(tmp_path, "asl", (10, 10, 10, 2), AFFINE)
    flipped = AFFINE.copy()
    flipped[0, 0], flipped[0, 3] = -3, 27
    got = check_grid(grid(tmp_path, "m0", (10, 10, 10), flipped), asl)
    assert not got.equal
    assert got.overlap == 1.0


def test_half_covered(tmp_path):
    asl = grid(tmp_path, "asl", (10, 10, 10, 2), AFFINE)
    got = check_grid(grid(tmp_path, "m0", (10, 10, 5), AFFINE), asl)
    assert got.overlap == pytest.approx(0.5)
    assert "covers 50% of the ASL image" in got.statement


def test_nothing_in_common(tmp_path):
    asl = grid(tmp_path, "asl", (10, 10, 10, 2), AFFINE)
    far = AFFINE.copy()
    far[2, 3] = 400
    error = fault(check_grid, grid(tmp_path, "m0", (10, 10, 10), far), asl)
    assert error.field == "field of view"
    assert error.file.endswith("m0.nii")


# As a run meets them


@pytest.mark.parametrize(
    ("content", "found"), [(b"", "an empty file"), (b"\0", "1 byte that are no NIfTI")]
)
def test_broken_image_of_a_run(tmp_path, content, found):
    run = FakeDataset(tmp_path).add("01", shape=(3, 3, 3))
    run.asl.write_bytes(content)
    error = fault(understand, runs_of(tmp_path)[0])
    assert (error.file, error.found) == ("sub-01/perf/sub-01_asl.nii.gz", found)


def test_3d_image_of_a_run(tmp_path):
    run = FakeDataset(tmp_path).add("01", shape=(3, 3, 3), delays=(1.8,), repeats=1)
    run.image(np.ones((3, 3, 3)))
    error = fault(understand, runs_of(tmp_path)[0])
    assert error.file == "sub-01/perf/sub-01_asl.nii.gz"
    assert (error.field, error.found, error.expected) == ("dimensions", "3D (3 x 3 x 3)", "4D")
