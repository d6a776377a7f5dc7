"""FID's Inception-v3 in PyTorch, with the keys and the arithmetic of pytorch-fid's."""

import torch
import torch.nn.functional as F
from torch import nn

from interlcm_jax.metrics.inception import InceptionConfig


class Basic(nn.Module):
    def __init__(self, cin: int, cout: int, kernel, stride: int = 1, padding="same"):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches by name: chains of (name, width, kernel), the last of a chain a fork where it is a tuple of these.

    `pool` is average, maximum or halving; in halving blocks the last of each chain has stride 2.
    """

    def __init__(self, cin: int, branches: list[list], pool: str):
        super().__init__()
        self.branches, self.pool = branches, pool
        for branch in branches:
            width = cin
            for part in branch:
                halving = pool == "halving" and part is branch[-1]
                forks = part if isinstance(part[0], tuple) else (part,)
                for name, cout, kernel in forks:
                    setattr(self, name, Basic(width, cout, kernel, 2, 0) if halving else Basic(width, cout, kernel))
                width = forks[0][1]

    def forward(self, x):
        outputs = []
        for branch in self.branches:
            y = x
            if branch[0][0] == "branch_pool":
                y = F.max_pool2d(x, 3, 1, 1) if self.pool == "maximum" else self.average(x)
            for part in branch:
                if isinstance(part[0], tuple):
                    y = torch.cat([getattr(self, name)(y) for name, *_ in part], 1)
                else:
                    y = getattr(self, part[0])(y)
            outputs.append(y)
        if self.pool == "halving":
            outputs.append(F.max_pool2d(x, 3, 2))
        return torch.cat(outputs, 1)

    @staticmethod
    def average(x):
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def chain(name: str, *parts) -> list:
    return [(f"{name}_{i}", *part) for i, part in enumerate(parts, start=1)]


def kind_a(u: int, cin: int, pool: int) -> Mixed:
    return Mixed(
        cin,
        [
            [("branch1x1", 4 * u, 1)],
            chain("branch5x5", (3 * u, 1), (4 * u, 5)),
            chain("branch3x3dbl", (4 * u, 1), (6 * u, 3), (6 * u, 3)),
            [("branch_pool", pool, 1)],
        ],
        "average",
    )


def kind_b(u: int, cin: int) -> Mixed:
    double = chain("branch3x3dbl", (4 * u, 1), (6 * u, 3), (6 * u, 3))
    return Mixed(cin, [[("branch3x3", 24 * u, 3)], double], "halving")


def kind_c(u: int, cin: int, c: int) -> Mixed:
    w, h = (1, 7), (7, 1)
    return Mixed(
        cin,
        [
            [("branch1x1", 12 * u, 1)],
            chain("branch7x7", (c, 1), (c, w), (12 * u, h)),
            chain("branch7x7dbl", (c, 1), (c, h), (c, w), (c, h), (12 * u, w)),
            [("branch_pool", 12 * u, 1)],
        ],
        "average",
    )


def kind_d(u: int, cin: int) -> Mixed:
    large = chain("branch7x7x3", (12 * u, 1), (12 * u, (1, 7)), (12 * u, (7, 1)), (12 * u, 3))
    return Mixed(cin, [chain("branch3x3", (12 * u, 1), (20 * u, 3)), large], "halving")


def kind_e(u: int, cin: int, pool: str) -> Mixed:
    def fork(name):
        return (f"{name}a", 24 * u, (1, 3)), (f"{name}b", 24 * u, (3, 1))

    return Mixed(
        cin,
        [
            [("branch1x1", 20 * u, 1)],
            [("branch3x3_1", 24 * u, 1), fork("branch3x3_2")],
            [("branch3x3dbl_1", 28 * u, 1), ("branch3x3dbl_2", 24 * u, 3), fork("branch3x3dbl_3")],
            [("branch_pool", 12 * u, 1)],
        ],
        pool,
    )


class TorchInception(nn.Module):
    def __init__(self, config: InceptionConfig):
        super().__init__()
        u = config.unit
        self.Conv2d_1a_3x3 = Basic(3, 2 * u, 3, 2, 0)
        self.Conv2d_2a_3x3 = Basic(2 * u, 2 * u, 3, 1, 0)
        self.Conv2d_2b_3x3 = Basic(2 * u, 4 * u, 3)
        self.Conv2d_3b_1x1 = Basic(4 * u, 5 * u, 1)
        self.Conv2d_4a_3x3 = Basic(5 * u, 12 * u, 3, 1, 0)
        self.Mixed_5b = kind_a(u, 12 * u, 2 * u)
        self.Mixed_5c = kind_a(u, 16 * u, 4 * u)
        self.Mixed_5d = kind_a(u, 18 * u, 4 * u)
        self.Mixed_6a = kind_b(u, 18 * u)
        self.Mixed_6b = kind_c(u, 48 * u, 8 * u)
        self.Mixed_6c = kind_c(u, 48 * u, 10 * u)
        self.Mixed_6d = kind_c(u, 48 * u, 10 * u)
        self.Mixed_6e = kind_c(u, 48 * u, 12 * u)
        self.Mixed_7a = kind_d(u, 48 * u)
        self.Mixed_7b = kind_e(u, 80 * u, "average")
        self.Mixed_7c = kind_e(u, 128 * u, "maximum")
        self.fc = nn.Linear(128 * u, config.num_classes)

    def forward(self, x):
        for name, part in self.named_children():
            if name == "fc":
                return F.adaptive_avg_pool2d(x, 1)[..., 0, 0]
            x = part(x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = F.max_pool2d(x, 3, 2)
        raise AssertionError
