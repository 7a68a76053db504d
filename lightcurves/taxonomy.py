"""The DESC taxonomy of ELAsTiCC: the class ids of labels and scores."""

from __future__ import annotations

from typing import Final

CLASS_NAMES: Final[dict[int, str]] = {
    111: "SN Ia",
    112: "SN Ib/c",
    113: "SN II",
    114: "SN Iax",
    115: "SN 91bg",
    121: "Kilonova",
    122: "M-dwarf flare",
    123: "Dwarf nova",
    124: "Microlensing",
    131: "SLSN",
    132: "TDE",
    133: "ILOT",
    134: "CART",
    135: "PISN",
    211: "Cepheid",
    212: "RR Lyrae",
    213: "Delta Scuti",
    214: "Eclipsing binary",
    215: "LPV/Mira",
    221: "AGN",
}
"""classId to name, taxonomy of the Extended LSST Astronomical Time-series Classification Challenge."""

PLASTICC_CLASSES: Final[dict[int, int]] = {
    6: 124,
    15: 132,
    16: 214,
    42: 113,
    52: 114,
    53: 215,
    62: 112,
    64: 121,
    65: 122,
    67: 115,
    88: 221,
    90: 111,
    92: 212,
    95: 131,
}
"""PLAsTiCC's target numbers (Kessler et al. 2019, PASP 131, 094501, table 2) to classIds."""


def class_name(class_id: int) -> str:
    """Return the name of a class, or its number if the taxonomy does not have it."""
    return CLASS_NAMES.get(class_id, f"class {class_id}")
