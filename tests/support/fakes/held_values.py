"""What a running object holds: every value that can be reached from it, past the program's own code."""

import asyncio
import gc
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

_CODE: Final = (ModuleType, CodeType, type, asyncio.AbstractEventLoop)


def held(root: object, *, without: tuple[object, ...] = ()) -> Iterator[object]:
    """Return each object that can be reached from `root`.

    Args:
        root: Where to begin.
        without: Objects past which nothing is looked at.
    """
    seen = {id(each) for each in without}
    waiting: list[Any] = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, _CODE):
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, FunctionType):
            waiting += [one.__closure__, one.__defaults__, one.__kwdefaults__]
        elif inspect.isframe(one):
            waiting += one.f_locals.values()
        else:
            waiting += gc.get_referents(one)
