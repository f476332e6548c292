"""Published scores, shown beside the results of a benchmark."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """Published method.

    Attributes:
        method: its name.
        source: publication and table.
        protocol: scoring protocol, as far as it is stated.
        groups: mean PSNR in dB and SSIM by group of images.
    """

    method: str
    source: str
    protocol: str
    groups: dict[str, tuple[float, float]]


_CATEGORIES = ("manmade", "natural", "people", "saturated", "text", "all")
_KERNELS = ("kernel_01", "kernel_02", "kernel_03", "kernel_04", "all")
# SelfDeblur's paper does not state its largest shift; its published script uses 10
_SD = "sd_matlab, maxshift not stated"
# no evaluation code is published, and the paper states neither channels, nor shift, nor crop
_GK = "not stated (color)"


def _rows(source: str, protocol: str, groups: tuple[str, ...], table: str) -> list[Row]:
    rows = []
    for line in table.strip().splitlines():
        method, *values = (part.strip() for part in line.split("|"))
        pairs = [tuple(float(number) for number in value.split("/")) for value in values]
        rows.append(Row(method, source, protocol, {g: (p[0], p[1]) for g, p in zip(groups, pairs)}))
    return rows


LAI = [
    *_rows(
        "Ren et al. 2020, Table 4",
        _SD,
        _CATEGORIES,
        """
        Cho and Lee | 16.35/.3890 | 20.14/.5198 | 19.90/.5560 | 14.05/.4927 | 14.87/.4429 | 17.06/.4801
        Xu and Jia | 19.23/.6540 | 23.03/.7542 | 25.32/.8517 | 14.79/.5632 | 18.56/.7171 | 20.18/.7080
        Xu L0 | 17.99/.5986 | 21.58/.6788 | 24.40/.8133 | 14.53/.5383 | 17.64/.6677 | 19.23/.6593
        Michaeli | 17.43/.4189 | 20.70/.5116 | 23.35/.6999 | 14.14/.4914 | 16.23/.4686 | 18.37/.5181
        Perrone | 17.41/.5507 | 21.04/.6764 | 22.77/.7347 | 14.24/.5107 | 16.94/.5927 | 18.48/.6130
        Pan L0 | 16.92/.5316 | 20.92/.6622 | 23.36/.7822 | 14.62/.5451 | 16.87/.6030 | 18.54/.6248
        Pan DCP | 18.59/.5942 | 22.60/.6984 | 24.03/.7719 | 16.52/.6322 | 17.42/.6193 | 19.89/.6656
        SelfDeblur | 20.35/.7543 | 22.05/.7092 | 25.94/.8834 | 16.35/.6364 | 20.16/.7785 | 20.97/.7524
        SelfDeblur + non-blind | 20.08/.7338 | 22.50/.7183 | 27.41/.8784 | 16.58/.6165 | 19.06/.7126 | 21.13/.7319
        """,
    ),
    *_rows(
        "Zhang et al. 2024, Table 2",
        _GK,
        _CATEGORIES,
        """
        Krishnan | 15.73/.408 | 19.44/.526 | 21.50/.647 | 14.09/.507 | 15.40/.485 | 17.23/.514
        Pan DCP | 18.25/.561 | 22.15/.672 | 22.72/.710 | 16.01/.591 | 16.69/.530 | 19.16/.613
        Dong | 17.30/.432 | 21.18/.586 | 21.89/.652 | 15.85/.554 | 16.18/.480 | 18.48/.541
        Kaufman and Fattal | 19.36/.650 | 23.14/.756 | 26.78/.873 | 16.40/.654 | 17.92/.683 | 20.72/.723
        SelfDeblur | 19.00/.617 | 22.94/.715 | 26.43/.781 | 18.38/.688 | 22.82/.776 | 21.91/.715
        VDIP | 22.51/.820 | 26.20/.901 | 31.38/.953 | 18.14/.691 | 27.72/.933 | 25.19/.860
        MCEM | 20.81/.721 | 24.07/.781 | 28.45/.860 | 14.81/.527 | 23.10/.834 | 22.25/.744
        GKPILE | 24.67/.942 | 28.12/.969 | 32.86/.973 | 18.98/.737 | 28.91/.951 | 26.71/.914
        """,
    ),
    *_rows(
        "Zhang et al. 2024, Table 3",
        _GK,
        _KERNELS,
        """
        GKPILE, w | 27.89/.932 | 26.31/.901 | 25.91/.916 | 26.73/.908 | 26.71/.914
        GKPILE, z | 27.11/.927 | 23.46/.830 | 22.75/.825 | 22.43/.763 | 23.94/.836
        GKPILE, z and weights | 24.38/.830 | 22.33/.716 | 24.45/.819 | 24.17/.814 | 23.83/.795
        """,
    ),
]
_OFFICIAL = "SelfDeblur, its published script, run and scored again"
LEVIN = [
    *_rows(
        "Ren et al. 2020, Table 3",
        _SD,
        ("all",),
        """
        known kernel + Levin 2011 | 34.53/.9492
        Krishnan | 29.88/.8666
        Cho and Lee | 30.57/.8966
        Levin 2011 | 30.80/.9092
        Xu and Jia | 31.67/.9163
        Sun | 32.99/.9330
        Zuo | 32.66/.9332
        Pan DCP | 32.69/.9284
        SRN | 23.43/.7117
        SelfDeblur | 33.07/.9313
        SelfDeblur + non-blind | 33.32/.9438
        """,
    ),
    Row(_OFFICIAL, "jbid", "sd_matlab, maxshift 10", {"all": (33.7812, 0.93363)}),
    Row(_OFFICIAL, "jbid", "sd_matlab, maxshift 5", {"all": (33.4514, 0.92566)}),
]
PUBLISHED = {"levin": LEVIN, "lai": LAI}
