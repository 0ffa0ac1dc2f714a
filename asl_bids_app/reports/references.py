"""The works that methods texts cite, one table: as text and as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Reference:
    """A citable work.

    Attributes
    ----------
    key : str
        In texts and in BibTeX.
    short : str
        As it stands in a text.
    authors : str
        Family names with initials, separated by commas; "et al" for the others.
    title : str
    journal : str
        Abbreviated, or the proceedings.
    volume, pages : str
        Pages or article number; may be empty.
    year : int
    doi : str
        Without the resolver's address.
    """

    key: str
    short: str
    authors: str
    title: str
    journal: str
    volume: str
    pages: str
    year: int
    doi: str

    @property
    def full(self) -> str:
        """Authors, title, journal, year."""
        place = f"{self.journal} {self.volume}" + (f":{self.pages}" if self.pages else "")
        return f"{self.authors}. {self.title}. {place}, {self.year}."

    def bibtex(self) -> str:
        """Return the work as an entry of a BibTeX file."""
        authors = [name.strip() for name in self.authors.split(",")]
        people = ["others" if name == "et al" else _person(name) for name in authors]
        fields = {
            "author": " and ".join(people),
            # Braces keep the capitals of names and abbreviations.
            "title": f"{{{self.title}}}",
            "journal": self.journal,
            "volume": self.volume,
            "pages": self.pages.replace("-", "--"),
            "year": str(self.year),
            "doi": self.doi,
        }
        rows = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
        return f"@article{{{self.key},\n" + ",\n".join(rows) + "\n}\n"


def _person(name: str) -> str:
    family, _, initials = name.rpartition(" ")
    return f"{family}, {' '.join(f'{letter}.' for letter in initials)}"


def bibtex(works: Iterable[Reference]) -> str:
    """Return works as a BibTeX file, in UTF-8."""
    return "\n".join(work.bibtex() for work in works)


_ROWS: Final = (
    Reference(
        "alsop",
        "Alsop et al., 2015",
        "Alsop DC, Detre JA, Golay X, et al",
        "Recommended implementation of arterial spin-labeled perfusion MRI for clinical "
        "applications",
        "Magn Reson Med",
        "73",
        "102-116",
        2015,
        "10.1002/mrm.25197",
    ),
    Reference(
        "leemput",
        "Van Leemput et al., 1999",
        "Van Leemput K, Maes F, Vandermeulen D, Suetens P",
        "Automated model-based bias field correction of MR images of the brain",
        "IEEE Trans Med Imaging",
        "18",
        "885-896",
        1999,
        "10.1109/42.811268",
    ),
    Reference(
        "buxton",
        "Buxton et al., 1998",
        "Buxton RB, Frank LR, Wong EC, et al",
        "A general kinetic model for quantitative perfusion imaging with arterial spin labeling",
        "Magn Reson Med",
        "40",
        "383-396",
        1998,
        "10.1002/mrm.1910400308",
    ),
    Reference(
        "woods",
        "Woods et al., 2024",
        "Woods JG, Achten E, Asllani I, et al",
        "Recommendations for quantitative cerebral perfusion MRI using multi-timepoint "
        "arterial spin labeling",
        "Magn Reson Med",
        "92",
        "469-495",
        2024,
        "10.1002/mrm.30091",
    ),
    Reference(
        "qin",
        "Qin et al., 2022",
        "Qin Q, Alsop DC, Bolar DS, et al",
        "Velocity-selective arterial spin labeling perfusion MRI: a review of the state of "
        "the art and recommendations for clinical implementation",
        "Magn Reson Med",
        "88",
        "1528-1547",
        2022,
        "10.1002/mrm.29371",
    ),
    Reference(
        "wong",
        "Wong et al., 2006",
        "Wong EC, Cronin M, Wu WC, et al",
        "Velocity-selective arterial spin labeling",
        "Magn Reson Med",
        "55",
        "1334-1341",
        2006,
        "10.1002/mrm.20906",
    ),
    Reference(
        "bids",
        "Gorgolewski et al., 2016",
        "Gorgolewski KJ, Auer T, Calhoun VD, et al",
        "The brain imaging data structure, a format for organizing and describing outputs "
        "of neuroimaging experiments",
        "Sci Data",
        "3",
        "160044",
        2016,
        "10.1038/sdata.2016.44",
    ),
    Reference(
        "aslbids",
        "Clement et al., 2022",
        "Clement P, Castellaro M, Okell TW, et al",
        "ASL-BIDS, the brain imaging data structure extension for arterial spin labeling",
        "Sci Data",
        "9",
        "543",
        2022,
        "10.1038/s41597-022-01615-9",
    ),
    Reference(
        "apps",
        "Gorgolewski et al., 2017",
        "Gorgolewski KJ, Alfaro-Almagro F, Auer T, et al",
        "BIDS apps: improving ease of use, accessibility, and reproducibility of "
        "neuroimaging data analysis methods",
        "PLoS Comput Biol",
        "13",
        "e1005209",
        2017,
        "10.1371/journal.pcbi.1005209",
    ),
    Reference(
        "nipype",
        "Gorgolewski et al., 2011",
        "Gorgolewski K, Burns CD, Madison C, et al",
        "Nipype: a flexible, lightweight and extensible neuroimaging data processing "
        "framework in Python",
        "Front Neuroinform",
        "5",
        "13",
        2011,
        "10.3389/fninf.2011.00013",
    ),
    Reference(
        "pytorch",
        "Paszke et al., 2019",
        "Paszke A, Gross S, Massa F, et al",
        "PyTorch: an imperative style, high-performance deep learning library",
        "Advances in Neural Information Processing Systems",
        "32",
        "",
        2019,
        "10.48550/arXiv.1912.01703",
    ),
    Reference(
        "baker",
        "Baker and Matthews, 2004",
        "Baker S, Matthews I",
        "Lucas-Kanade 20 years on: a unifying framework",
        "Int J Comput Vis",
        "56",
        "221-255",
        2004,
        "10.1023/B:VISI.0000011205.11775.fd",
    ),
    Reference(
        "simpleitk",
        "Lowekamp et al., 2013",
        "Lowekamp BC, Chen DT, Ibáñez L, Blezek D",
        "The design of SimpleITK",
        "Front Neuroinform",
        "7",
        "45",
        2013,
        "10.3389/fninf.2013.00045",
    ),
    Reference(
        "wang",
        "Wang, 2012",
        "Wang Z",
        "Improving cerebral blood flow quantification for arterial spin labeled perfusion "
        "MRI by removing residual motion artifacts and global signal fluctuations",
        "Magn Reson Imaging",
        "30",
        "1409-1415",
        2012,
        "10.1016/j.mri.2012.05.004",
    ),
    Reference(
        "wright",
        "Wright et al., 2008",
        "Wright PJ, Mougin OE, Totman JJ, et al",
        "Water proton T1 measurements in brain tissue at 7, 3, and 1.5 T using IR-EPI, "
        "IR-TSE, and MPRAGE: results and optimization",
        "Magn Reson Mater Phy",
        "21",
        "121-130",
        2008,
        "10.1007/s10334-008-0104-8",
    ),
    Reference(
        "power",
        "Power et al., 2012",
        "Power JD, Barnes KA, Snyder AZ, et al",
        "Spurious but systematic correlations in functional connectivity MRI networks arise "
        "from subject motion",
        "NeuroImage",
        "59",
        "2142-2154",
        2012,
        "10.1016/j.neuroimage.2011.10.018",
    ),
    Reference(
        "fonov",
        "Fonov et al., 2011",
        "Fonov V, Evans AC, Botteron K, et al",
        "Unbiased average age-appropriate atlases for pediatric studies",
        "NeuroImage",
        "54",
        "313-327",
        2011,
        "10.1016/j.neuroimage.2010.07.033",
    ),
    Reference(
        "unet",
        "Ronneberger et al., 2015",
        "Ronneberger O, Fischer P, Brox T",
        "U-Net: convolutional networks for biomedical image segmentation",
        "MICCAI, LNCS",
        "9351",
        "234-241",
        2015,
        "10.1007/978-3-319-24574-4_28",
    ),
    Reference(
        "ensembles",
        "Lakshminarayanan et al., 2017",
        "Lakshminarayanan B, Pritzel A, Blundell C",
        "Simple and scalable predictive uncertainty estimation using deep ensembles",
        "Advances in Neural Information Processing Systems",
        "30",
        "",
        2017,
        "10.48550/arXiv.1612.01474",
    ),
    Reference(
        "qei",
        "Dolui et al., 2024",
        "Dolui S, Wang Z, Wolf RL, et al",
        "Automated quality evaluation index for arterial spin labeling derived cerebral "
        "blood flow maps",
        "J Magn Reson Imaging",
        "60",
        "2497-2508",
        2024,
        "10.1002/jmri.29308",
    ),
    Reference(
        "scov",
        "Mutsaerts et al., 2017",
        "Mutsaerts HJ, Petr J, Václavů L, et al",
        "The spatial coefficient of variation in arterial spin labeling cerebral blood flow "
        "images",
        "J Cereb Blood Flow Metab",
        "37",
        "3184-3192",
        2017,
        "10.1177/0271678X16683690",
    ),
)

REFERENCES: Final = {work.key: work for work in _ROWS}
