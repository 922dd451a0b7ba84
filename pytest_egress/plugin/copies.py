"""Copies of test items: the same test under another name, with nothing of its earlier runs."""

from __future__ import annotations

import pytest


def named(name: str, suffix: str) -> str:
    """A test's name, or its node id, with one parameter more."""
    return f"{name[:-1]}-{suffix}]" if name.endswith("]") else f"{name}[{suffix}]"


def copy_of(item: pytest.Function, suffix: str) -> pytest.Function:
    """The same test, with one parameter more in its name. Its fixtures of function scope will be made anew."""
    clone: pytest.Function = type(item).from_parent(
        item.parent,
        name=named(item.name, suffix),
        callspec=getattr(item, "callspec", None),
        fixtureinfo=item._fixtureinfo,
        originalname=item.originalname,
        **({} if is_found(item) else {"callobj": item.obj}),
    )
    set_id(clone, named(item.nodeid, suffix))
    clone.fixturenames = item.fixturenames
    clone.own_markers[:] = item.own_markers
    clone.keywords.update({marker.name: marker for marker in item.own_markers})
    return clone


def set_id(item: pytest.Item, nodeid: str) -> None:
    """Since pytest 9.2 a node's id is made of its function and its parameters, whatever its name; --lf compares it."""
    if hasattr(item, "_id"):
        item._id = type(item._id).parse(nodeid)


def is_found(item: pytest.Function) -> bool:
    """Whether pytest finds the function of a test by its name, as a rule; a method needs an instance of its own."""
    above = getattr(item.parent, "obj", None)
    return hasattr(above, item.originalname)
