"""Where a detector's time, operations and bytes go: its children, and those of its view transformer."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

OPENED: Final = ("img_view_transformer",)
"""Children whose own children are parts as well."""
REST: Final = "the rest"


def parts_of(detector: nn.Module) -> dict[str, nn.Module]:
    """Modules by name; one in another has its share taken off the other's."""
    found = {}
    for name, child in detector.named_children():
        found[name] = child
        if name in OPENED:
            found |= {f"{name}.{inner}": part for inner, part in child.named_children()}
    return found


@contextmanager
def observed(detector: nn.Module, enter: Callable[[str], None], leave: Callable[[str], None]) -> Iterator[None]:
    """Within it, every call of a part is announced."""
    hooks = []
    for name, part in parts_of(detector).items():
        hooks.append(part.register_forward_pre_hook(lambda _part, _args, name=name: enter(name)))
        hooks.append(part.register_forward_hook(lambda _part, _args, _out, name=name: leave(name)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def seconds_on(device: torch.device) -> float:
    """Seconds, when all that was asked of the device is done; on a CPU those of its cores that this process had.

    So other work on the machine counts little.
    """
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


class Stopwatch:
    """Seconds of each part, without those of parts within it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = [REST]
        self._since = seconds_on(device)

    def enter(self, name: str) -> None:
        self._charge()
        self._open.append(name)

    def leave(self, name: str) -> None:
        self._charge()
        assert self._open.pop() == name

    def stop(self) -> dict[str, float]:
        """The seconds so far."""
        self._charge()
        return dict(self.seconds)

    def _charge(self) -> None:
        now = seconds_on(self.device)
        self.seconds[self._open[-1]] += now - self._since
        self._since = now


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Floating-point operations of convolutions and matrix products, and bytes that operators read and write, by part.

    Bytes are those of operands and results, as if nothing stayed in a cache; views move none, and adding rows to a
    table moves those rows alone.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flop: dict[str, int] = defaultdict(int)
        self.moved: dict[str, int] = defaultdict(int)
        self._open: list[str] = [REST]

    def enter(self, name: str) -> None:
        self._open.append(name)

    def leave(self, name: str) -> None:
        assert self._open.pop() == name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        part = self._open[-1]
        if func._overloadpacket in flop_registry:
            self.flop[part] += flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
        if func._overloadpacket is torch.ops.aten.index_add_:
            _, _, index, rows = args
            self.moved[part] += index.nbytes + 3 * rows.nbytes  # read, and those of the table read and written
        elif not _is_view(func):
            self.moved[part] += sum(one.nbytes for one in tree_leaves((args, kwargs, out)) if isinstance(one, Tensor))
        return out


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return any(one.alias_info is not None and not one.alias_info.is_write for one in returns)
