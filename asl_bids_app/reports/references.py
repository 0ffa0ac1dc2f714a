"""The works that methods texts cite, one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Reference:
    """A citable work.

    Attributes
    ----------
    short : str
        As it stands in a text.
    full : str
        Authors, title, journal, year.
    doi : str
        Without the resolver's address.
    """

    short: str
    full: str
    doi: str


REFERENCES: Final = {
    "alsop": Reference(
        "Alsop et al., 2015",
        "Alsop DC, Detre JA, Golay X, et al. Recommended implementation of arterial "
        "spin-labeled perfusion MRI for clinical applications. Magn Reson Med 73:102-116, 2015.",
        "10.1002/mrm.25197",
    ),
    "leemput": Reference(
        "Van Leemput et al., 1999",
        "Van Leemput K, Maes F, Vandermeulen D, Suetens P. Automated model-based bias field "
        "correction of MR images of the brain. IEEE Trans Med Imaging 18:885-896, 1999.",
        "10.1109/42.811268",
    ),
    "buxton": Reference(
        "Buxton et al., 1998",
        "Buxton RB, Frank LR, Wong EC, et al. A general kinetic model for quantitative "
        "perfusion imaging with arterial spin labeling. Magn Reson Med 40:383-396, 1998.",
        "10.1002/mrm.1910400308",
    ),
    "woods": Reference(
        "Woods et al., 2024",
        "Woods JG, Achten E, Asllani I, et al. Recommendations for quantitative cerebral "
        "perfusion MRI using multi-timepoint arterial spin labeling. Magn Reson Med 92:469-495, "
        "2024.",
        "10.1002/mrm.30091",
    ),
    "qin": Reference(
        "Qin et al., 2022",
        "Qin Q, Alsop DC, Bolar DS, et al. Velocity-selective arterial spin labeling perfusion "
        "MRI: a review of the state of the art and recommendations for clinical implementation. "
        "Magn Reson Med 88:1528-1547, 2022.",
        "10.1002/mrm.29371",
    ),
    "wong": Reference(
        "Wong et al., 2006",
        "Wong EC, Cronin M, Wu WC, et al. Velocity-selective arterial spin labeling. Magn Reson "
        "Med 55:1334-1341, 2006.",
        "10.1002/mrm.20906",
    ),
    "bids": Reference(
        "Gorgolewski et al., 2016",
        "Gorgolewski KJ, Auer T, Calhoun VD, et al. The brain imaging data structure, a format "
        "for organizing and describing outputs of neuroimaging experiments. Sci Data 3:160044, "
        "2016.",
        "10.1038/sdata.2016.44",
    ),
    "aslbids": Reference(
        "Clement et al., 2022",
        "Clement P, Castellaro M, Okell TW, et al. ASL-BIDS, the brain imaging data structure "
        "extension for arterial spin labeling. Sci Data 9:543, 2022.",
        "10.1038/s41597-022-01615-9",
    ),
    "apps": Reference(
        "Gorgolewski et al., 2017",
        "Gorgolewski KJ, Alfaro-Almagro F, Auer T, et al. BIDS apps: improving ease of use, "
        "accessibility, and reproducibility of neuroimaging data analysis methods. PLoS Comput "
        "Biol 13:e1005209, 2017.",
        "10.1371/journal.pcbi.1005209",
    ),
    "nipype": Reference(
        "Gorgolewski et al., 2011",
        "Gorgolewski K, Burns CD, Madison C, et al. Nipype: a flexible, lightweight and "
        "extensible neuroimaging data processing framework in Python. Front Neuroinform 5:13, "
        "2011.",
        "10.3389/fninf.2011.00013",
    ),
    "pytorch": Reference(
        "Paszke et al., 2019",
        "Paszke A, Gross S, Massa F, et al. PyTorch: an imperative style, high-performance deep "
        "learning library. Advances in Neural Information Processing Systems 32, 2019.",
        "10.48550/arXiv.1912.01703",
    ),
    "simpleitk": Reference(
        "Lowekamp et al., 2013",
        "Lowekamp BC, Chen DT, Ibáñez L, Blezek D. The design of SimpleITK. Front Neuroinform "
        "7:45, 2013.",
        "10.3389/fninf.2013.00045",
    ),
    "wang": Reference(
        "Wang, 2012",
        "Wang Z. Improving cerebral blood flow quantification for arterial spin labeled perfusion "
        "MRI by removing residual motion artifacts and global signal fluctuations. Magn Reson "
        "Imaging 30:1409-1415, 2012.",
        "10.1016/j.mri.2012.05.004",
    ),
    "power": Reference(
        "Power et al., 2012",
        "Power JD, Barnes KA, Snyder AZ, et al. Spurious but systematic correlations in "
        "functional connectivity MRI networks arise from subject motion. NeuroImage "
        "59:2142-2154, 2012.",
        "10.1016/j.neuroimage.2011.10.018",
    ),
    "fonov": Reference(
        "Fonov et al., 2011",
        "Fonov V, Evans AC, Botteron K, et al. Unbiased average age-appropriate atlases for "
        "pediatric studies. NeuroImage 54:313-327, 2011.",
        "10.1016/j.neuroimage.2010.07.033",
    ),
    "unet": Reference(
        "Ronneberger et al., 2015",
        "Ronneberger O, Fischer P, Brox T. U-Net: convolutional networks for biomedical image "
        "segmentation. MICCAI, LNCS 9351:234-241, 2015.",
        "10.1007/978-3-319-24574-4_28",
    ),
    "ensembles": Reference(
        "Lakshminarayanan et al., 2017",
        "Lakshminarayanan B, Pritzel A, Blundell C. Simple and scalable predictive uncertainty "
        "estimation using deep ensembles. Advances in Neural Information Processing Systems 30, "
        "2017.",
        "10.48550/arXiv.1612.01474",
    ),
    "qei": Reference(
        "Dolui et al., 2024",
        "Dolui S, Wang Z, Wolf RL, et al. Automated quality evaluation index for arterial spin "
        "labeling derived cerebral blood flow maps. J Magn Reson Imaging 60:2497-2508, 2024.",
        "10.1002/jmri.29308",
    ),
    "scov": Reference(
        "Mutsaerts et al., 2017",
        "Mutsaerts HJ, Petr J, Václavů L, et al. The spatial coefficient of variation in arterial "
        "spin labeling cerebral blood flow images. J Cereb Blood Flow Metab 37:3184-3192, 2017.",
        "10.1177/0271678X16683690",
    ),
}
