"""Broken images are told in one line; odd ones are read with what is to be known of them."""

import gzip
import re

import nibabel as nib
import numpy as np
import pytest
from fake_bids import FakeDataset, runs_of

from asl_bids_app.bids.grids import check_grid, voxel_by_voxel
from asl_bids_app.bids.images import load, read_header
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
    header = read_header(path)
    (warning,) = header.warnings
    assert "neither qform nor sform" in warning
    assert not header.oriented
    assert not load(path).oriented
    # As the warning says: the first axis runs to the left.
    assert np.sign(np.diag(header.affine)).tolist() == [-1, 1, 1, 1]


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


# Length and offset


def plain(path, dtype=np.float32, shape=(5, 6, 7, 4), kind=nib.Nifti1Image, extension=b""):
    """Bytes of an uncompressed image."""
    image = kind(np.arange(np.prod(shape)).reshape(shape).astype(dtype), AFFINE)
    if extension:
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", extension))
    image.to_filename(path)
    return bytearray(path.read_bytes())


def written(tmp_path, raw, zipped):
    """Write the bytes of an image, compressed or not."""
    path = tmp_path / ("b.nii.gz" if zipped else "b.nii")
    path.write_bytes(gzip.compress(bytes(raw)) if zipped else bytes(raw))
    return path


def offset(value, kind=nib.Nifti1Image):
    place, form = (108, "<f4") if kind is nib.Nifti1Image else (168, "<i8")

    def change(raw):
        raw[place : place + np.dtype(form).itemsize] = np.array(value, form).tobytes()
        return raw

    return change


def header_field(place, form, value):
    def change(raw):
        raw[place : place + np.dtype(form).itemsize] = np.array(value, form).tobytes()
        return raw

    return change


MISFITS = {
    "offset 0": (offset(0), "vox_offset"),
    "offset in the header": (offset(348), "vox_offset"),
    "negative offset": (offset(-352), "vox_offset"),
    "offset between bytes": (offset(352.5), "vox_offset"),
    "offset is no number": (offset(np.nan), "vox_offset"),
    "offset without end": (offset(np.inf), "vox_offset"),
    "a factor without end": (header_field(112, "<f4", -np.inf), "scl_slope"),
    "offset 16 too far": (offset(368), ""),
    "offset beyond the file": (offset(1e9), ""),
    "one volume too few": (header_field(48, "<i2", 3), "file length"),
    "one volume too many": (header_field(48, "<i2", 5), ""),
    "half of the bytes of a value": (
        lambda raw: header_field(72, "<i2", 16)(header_field(70, "<i2", 4)(raw)),
        "file length",
    ),
    "a byte too many": (lambda raw: raw + b"\0", "file length"),
    "a byte too few": (lambda raw: raw[:-1], ""),
    "a header before the data": (lambda raw: raw[:352] + raw, "file length"),
}


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_its_header_is_refused(tmp_path, case, zipped):
    change, field = MISFITS[case]
    path = written(tmp_path, change(plain(tmp_path / "a.nii")), zipped)
    for call in (read_header, load):
        error = fault(call, path, name="sub-01/perf/x")
        assert error.file == "sub-01/perf/x"
        assert error.field == field
        assert error.cure
        if not field:
            assert "end early" in error.found


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("extension", [b"", b"x" * 100, b"x" * 5000])
def test_extensions_are_no_fault(tmp_path, kind, extension, zipped):
    raw = plain(tmp_path / "a.nii", np.int16, kind=kind, extension=extension)
    path = written(tmp_path, raw, zipped)
    expected = np.arange(5 * 6 * 7 * 4).reshape(5, 6, 7, 4)
    np.testing.assert_array_equal(load(path).data, expected)
    assert read_header(path).warnings == ()
    # A wrong offset of an image with extensions is one all the same.
    assert fault(load, written(tmp_path, offset(0, kind)(raw), zipped)).field == "vox_offset"


def test_a_factor_that_is_no_number_is_told(tmp_path):
    raw = header_field(112, "<f4", np.nan)(plain(tmp_path / "a.nii"))
    assert any("scl_slope" in text for text in load(written(tmp_path, raw, True)).warnings)


def test_data_behind_which_something_else_follows_were_read(tmp_path):
    path = written(tmp_path, plain(tmp_path / "a.nii"), True)
    whole = path.read_bytes()
    path.write_bytes(whole + b"something else")
    assert "0 of" not in fault(load, path).found
    # Noise can't be packed, so half of the file holds about half of the data.
    noise = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
    nib.Nifti1Image(noise, AFFINE).to_filename(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    read = int(re.search(r"\((\d+) of", fault(load, path).found)[1])
    assert read == pytest.approx(noise.nbytes / 2, rel=0.2)


def test_both_byte_orders(tmp_path):
    image = nib.Nifti1Image(series(), AFFINE, nib.Nifti1Header(endianness=">"))
    image.to_filename(tmp_path / "a.nii")
    np.testing.assert_array_equal(load(tmp_path / "a.nii").data, series())
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[108:112] = np.array(0, ">f4").tobytes()
    assert fault(load, written(tmp_path, raw, False)).field == "vox_offset"


def test_gzip_data_of_several_members_or_with_zeros_behind_are_no_fault(tmp_path):
    raw = bytes(plain(tmp_path / "a.nii"))
    path = tmp_path / "b.nii.gz"
    for content in (
        gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]),
        gzip.compress(raw) + b"\0" * 512,
    ):
        path.write_bytes(content)
        assert read_header(path).shape == (5, 6, 7, 4)
        assert load(path).data[-1, -1, -1, -1] == 5 * 6 * 7 * 4 - 1


# Impossible values


def test_single_impossible_values_take_those_of_their_neighbours(path):
    data = series(shape=(8, 9, 7))
    truth = data.copy()
    hit = [(2, 3, 4, 1), (0, 0, 0, 2), (5, 5, 5, 3)]
    for place, value in zip(hit, (1e38, -3e38, 1e5), strict=True):
        data[place] = value
    image = load(write(path, data), name="x")
    assert np.abs(image.data).max() <= 2
    untouched = np.ones(data.shape, bool)
    untouched[tuple(np.transpose(hit))] = False
    np.testing.assert_array_equal(image.data[untouched], truth[untouched])
    near = truth[1:4, 2:5, 3:6, 1].ravel()
    assert image.data[2, 3, 4, 1] == pytest.approx(np.median(np.delete(near, 13)))
    expected = np.zeros((8, 9, 7), bool)
    expected[2, 3, 4] = expected[0, 0, 0] = expected[5, 5, 5] = True
    np.testing.assert_array_equal(image.spikes, expected)
    assert image.finite.all()
    (warning,) = image.warnings
    assert warning.startswith("x: 3 of 504 voxels hold a value")
    assert load(path, may_be_empty=(1, 2, 3)).spikes is None


def test_bright_vessels_and_fat_are_measurements(path):
    data = series()
    data[1, 2, 3] = 100
    image = load(write(path, data))
    assert image.spikes is None
    np.testing.assert_array_equal(image.data, data)


# Orientation


def formed(path, sform, qform, codes=(1, 1)):
    image = nib.Nifti1Image(np.ones((20, 20, 10)), sform)
    image.set_sform(sform, codes[0])
    image.set_qform(qform, codes[1])
    image.to_filename(path)
    return read_header(path)


def test_qform_and_sform_that_disagree_are_told(path):
    shifted = AFFINE.copy()
    shifted[1, 3] = 12
    header = formed(path, AFFINE, shifted)
    (warning,) = header.warnings
    assert "qform and sform that differ by up to 12.0 mm" in warning
    np.testing.assert_allclose(header.affine, AFFINE)
    # A turn by 3 degrees about z: 19 voxels of 3 mm along each axis, from one corner.
    c, s = np.cos(np.radians(3)), np.sin(np.radians(3))
    turned = AFFINE @ np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    far = 2 * np.sin(np.radians(1.5)) * np.hypot(57, 57)
    (warning,) = formed(path, AFFINE, turned).warnings
    assert f"{far:.1f} mm" in warning


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (4, 1)])
def test_forms_that_agree_or_stand_alone_are_no_fault(path, codes):
    other = AFFINE.copy()
    other[:3, 3] += 1e-3
    header = formed(path, AFFINE, other, codes)
    assert header.warnings == ()
    assert header.oriented


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


@pytest.mark.parametrize("shift", [(0, 0, 10), (300, 0, 0)])
@pytest.mark.parametrize("lost", ["asl", "m0"])
def test_without_orientation_on_one_side_equal_matrices_go_voxel_by_voxel(tmp_path, lost, shift):
    far = AFFINE.copy()
    far[:3, 3] = shift
    headers = {
        "asl": grid(tmp_path, "asl", (10, 10, 10, 2), None if lost == "asl" else far),
        "m0": grid(tmp_path, "m0", (10, 10, 10), None if lost == "m0" else far),
    }
    # A bare header has voxels of 1 mm.
    bare = nib.load(headers[lost].path)
    header, path = bare.header.copy(), tmp_path / f"bare_{lost}.nii"
    header.set_zooms((3, 3, 5, 1)[: bare.ndim])
    nib.Nifti1Image(np.ones(bare.shape), None, header).to_filename(path)
    headers[lost] = read_header(path)
    got = check_grid(headers["m0"], headers["asl"])
    assert got.equal
    assert got.guessed
    assert "voxel by voxel" in got.statement
    assert f"{headers[lost].path.name} has no orientation" in got.statement


def test_what_goes_voxel_by_voxel():
    shape, wider = (10, 10, 10), AFFINE @ np.diag([1.2, 1.2, 1.2, 1])
    assert voxel_by_voxel(shape, AFFINE, True, (*shape, 2), AFFINE * [[-1], [1], [1], [1]], False)
    assert voxel_by_voxel(shape, AFFINE, False, shape, AFFINE, True)
    # Both know where they lie, or neither does; another matrix; voxels of another size.
    assert not voxel_by_voxel(shape, AFFINE, True, shape, AFFINE, True)
    assert not voxel_by_voxel(shape, AFFINE, False, shape, AFFINE, False)
    assert not voxel_by_voxel(shape, AFFINE, True, (10, 10, 9), AFFINE, False)
    assert not voxel_by_voxel(shape, AFFINE, True, shape, wider, False)


def test_fields_of_view_with_less_than_half_in_common(tmp_path):
    asl = grid(tmp_path, "asl", (10, 10, 10, 2), AFFINE)
    for shift, refused in ((20, False), (30, True)):
        moved = AFFINE.copy()
        moved[2, 3] = shift
        m0 = grid(tmp_path, "m0", (10, 10, 10), moved)
        if refused:
            assert fault(check_grid, m0, asl).field == "field of view"
        else:
            assert check_grid(m0, asl).overlap == pytest.approx(0.6)
    # A slab inside a whole head is no fault, whichever of the two it is.
    thin = grid(tmp_path, "thin", (10, 10, 2), AFFINE)
    assert check_grid(thin, asl).overlap == pytest.approx(0.2)
    whole = grid(tmp_path, "whole", (10, 10, 40), AFFINE)
    assert check_grid(whole, asl).overlap == 1


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
