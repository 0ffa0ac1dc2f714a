"""What estimators are told of anatomy: the M0 of a slice without its units and amplitude."""

import numpy as np
import pytest
import torch
from physics import simulate
from slices import PROTOCOLS, maps

from asl_bids_app.observation import observe, structure_of


def an_image(seed=0):
    rng = np.random.default_rng(seed)
    image = torch.tensor(rng.uniform(300, 900, (2, 7, 9))).float()
    mask = torch.tensor(rng.random((2, 7, 9)) > 0.3)
    return image, mask


def test_structure_is_the_logarithm_over_the_median():
    image, mask = an_image()
    found = structure_of(image, mask)
    for b in range(2):
        level = np.sort(image[b][mask[b]].numpy())[(int(mask[b].sum()) - 1) // 2]
        expected = np.log(image[b].numpy() / level) * mask[b].numpy()
        np.testing.assert_allclose(found[b].numpy(), expected, atol=1e-5)


def test_structure_has_no_units_and_slices_stand_alone():
    image, mask = an_image()
    scale = torch.tensor([3.0, 1e-4])[:, None, None]
    assert torch.allclose(structure_of(scale * image, mask), structure_of(image, mask), atol=1e-5)


@pytest.mark.parametrize("image", [None, torch.zeros(2, 7, 9), torch.full((2, 7, 9), 41.5)])
def test_no_image_and_a_flat_one_say_nothing(image):
    found = structure_of(image, an_image()[1])
    assert found.shape == (2, 7, 9)
    assert not found.any()


def test_a_slice_without_brain_and_a_voxel_without_signal_are_zero():
    image, mask = an_image()
    mask[1] = False
    row, column = (int(i[0]) for i in mask[0].nonzero(as_tuple=True))
    image[0, row, column] = 0
    found = structure_of(image, mask)
    assert bool(found.isfinite().all())
    assert not found[1].any()
    assert float(found[0, row, column]) == 0


def test_a_series_hands_its_m0_on():
    from dataclasses import replace

    cbf, att, _ = maps((2, 7, 9))
    series = simulate(PROTOCOLS["pcasl"], cbf, att)
    image, _ = an_image()
    noise = torch.full((2, 6, 1, 1), 1e-3)
    assert not observe(series, noise).structure.any()
    seen = observe(replace(series, m0=image), noise)
    assert torch.equal(seen.structure, structure_of(image, series.mask))
    with pytest.raises(ValueError, match="m0: shape"):
        replace(series, m0=image[:1])
