"""Modules of a user, in a file that both sides import."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Tied(nn.Module):  # type: ignore[misc]
    """Tied weights, a buffer of each kind, a function, a class and plain settings among the attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.activation = functional.gelu
        self.norm = nn.LayerNorm
        self.settings = {"rate": 0.1, "sizes": (3, 5)}
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("dropped", torch.ones(2), persistent=False)
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: Any) -> Any:
        return self.head(self.activation(self.embed(x))) * self.scale


class Remembers(nn.Module):  # type: ignore[misc]
    def __getstate__(self) -> Any:
        return {}


def own(x: Any) -> Any:
    return x


class WithFunction(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.function = own


class Slotted(nn.Module):  # type: ignore[misc]
    __slots__ = ("more",)


class Chosen(nn.Module):  # type: ignore[misc]
    """As vision models keep a norm with its settings, and adapters a method of what they adapt."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = partial(nn.LayerNorm, 2, eps=1e-6)
        self.activation = partial(functional.leaky_relu, negative_slope=0.5)
        self.rule = self.twice

    def twice(self, x: Any) -> Any:
        return self.activation(-x) * 2

    def forward(self, x: Any) -> Any:
        return self.rule(x)


class NoModule:
    pass
