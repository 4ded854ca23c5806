"""The figures of the GMC paper's tables, and the named run that reproduces each."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from experiments.paper.settings import TOP_S
from experiments.training.methods import DETACHMENTS


class Figures(NamedTuple):
    """Test accuracy in percent, with the cost or the training loss if printed."""

    accuracy: float
    cost: float | None = None
    loss: float | None = None

    def __str__(self) -> str:
        """Formats the figures as a cell of the table."""
        text = f"{self.accuracy:.2f}"
        if self.cost is not None:
            text += f" ({self.cost:.2f})"
        if self.loss is not None:
            text += f", loss {self.loss:.2f}"
        return text


class Line(NamedTuple):
    """A line of a table: its named run, and the published figures of each method."""

    label: str
    run: str
    published: dict[str, Figures]


class Printed(NamedTuple):
    """A table of the paper."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Line]


def _top_s(label: str, run: str, *figures: tuple[float, float]) -> Line:
    cells = itertools.starmap(Figures, figures)
    return Line(label, run, dict(zip(TOP_S, cells, strict=True)))


def _by_detachment(
    label: str, method: str, losses: Sequence[float], accuracies: Sequence[float]
) -> Line:
    cells = {
        f"{method}_{detach}": Figures(accuracy, loss=loss)
        for detach, loss, accuracy in zip(DETACHMENTS, losses, accuracies, strict=True)
    }
    return Line(label, "table3", cells)


def _blocks(label: str, run: str, def_a: float, gmc_plus: float) -> Line:
    return Line(
        label, run, {"def_a_0.3": Figures(def_a), "gmc_plus_0.5": Figures(gmc_plus)}
    )


_TOP_S_COLUMNS = ("DGC, masked", "DGC", "CSER", "DEF-A", "GMC")

TABLES = {
    "1": Printed(
        "Table 1, IID: test accuracy % (RCC %)",
        _TOP_S_COLUMNS,
        (
            _top_s(
                "CIFAR-10 ResNet-20 (BN)",
                "table1_cifar10_resnet20",
                *((92.44, 0.66), (92.30, 0.66), (91.70, 0.62)),
                *((92.29, 0.65), (92.30, 0.64)),
            ),
            _top_s(
                "CIFAR-10 ViT",
                "table1_cifar10_vit",
                *((83.67, 0.82), (83.35, 0.81), (76.81, 0.62)),
                *((82.67, 0.81), (83.46, 0.80)),
            ),
            _top_s(
                "CIFAR-100 ResNet-20 (BN)",
                "table1_cifar100_resnet20",
                *((68.05, 0.64), (68.66, 0.64), (66.62, 0.65)),
                *((68.72, 0.64), (68.89, 0.64)),
            ),
            _top_s(
                "CIFAR-100 ViT",
                "table1_cifar100_vit",
                *((59.28, 0.80), (59.15, 0.79), (50.35, 0.65)),
                *((56.56, 0.79), (59.28, 0.78)),
            ),
        ),
    ),
    "2": Printed(
        "Table 2, non-IID: test accuracy % (RCC %)",
        _TOP_S_COLUMNS,
        (
            _top_s(
                "CIFAR-10 ResNet-20 (GN)",
                "table2_cifar10_resnet20",
                *((67.13, 0.65), (81.93, 0.65), (78.65, 0.63)),
                *((82.15, 0.65), (86.51, 0.64)),
            ),
            _top_s(
                "CIFAR-10 ViT",
                "table2_cifar10_vit",
                *((60.24, 0.81), (71.35, 0.81), (67.35, 0.67)),
                *((72.25, 0.81), (73.34, 0.81)),
            ),
            _top_s(
                "CIFAR-100 ResNet-20 (GN)",
                "table2_cifar100_resnet20",
                *((50.02, 0.64), (52.79, 0.64), (50.17, 0.65)),
                *((52.07, 0.64), (58.59, 0.63)),
            ),
            _top_s(
                "CIFAR-100 ViT",
                "table2_cifar100_vit",
                *((53.29, 0.79), (55.00, 0.80), (45.91, 0.70)),
                *((50.74, 0.79), (57.77, 0.79)),
            ),
        ),
    ),
    "3": Printed(
        "Table 3, random blocks, ResNet-20 on CIFAR-100, by lambda: test accuracy %",
        [str(detach) for detach in DETACHMENTS],
        (
            _by_detachment(
                "DEF-A",
                "def_a",
                losses=(4.09, 0.56, 0.57, 0.68, 0.76),
                accuracies=(6.03, 66.36, 65.28, 64.84, 64.45),
            ),
            _by_detachment(
                "GMC+",
                "gmc_plus",
                losses=(3.48, 0.55, 0.40, 0.42, 0.43),
                accuracies=(15.81, 67.31, 67.94, 67.27, 66.68),
            ),
        ),
    ),
    "4": Printed(
        "Table 4, random blocks: test accuracy %",
        ("DEF-A, lambda 0.3", "GMC+, lambda 0.5"),
        (
            _blocks("CIFAR-10 IID ResNet-20", "table4_cifar10_resnet20", 90.78, 91.41),
            _blocks("CIFAR-10 IID ViT", "table4_cifar10_vit", 74.21, 75.78),
            _blocks(
                "CIFAR-10 non-IID ResNet-20",
                "table4_cifar10_resnet20_noniid",
                *(78.17, 79.25),
            ),
            _blocks("CIFAR-10 non-IID ViT", "table4_cifar10_vit_noniid", 65.16, 66.61),
            _blocks("CIFAR-100 IID ResNet-20", "table3", 66.36, 67.94),
            _blocks("CIFAR-100 IID ViT", "table4_cifar100_vit", 50.85, 55.50),
            _blocks(
                "CIFAR-100 non-IID ResNet-20",
                "table4_cifar100_resnet20_noniid",
                *(49.39, 51.22),
            ),
            _blocks(
                "CIFAR-100 non-IID ViT", "table4_cifar100_vit_noniid", 46.09, 50.07
            ),
        ),
    ),
}
