"""Copies of test items: the same test under another name, with nothing of its earlier runs."""

from __future__ import annotations

import sys

import pytest


def named(name: str, suffix: str) -> str:
    """A test's name, or its node id, with one parameter more, without the `@group` of pytest-xdist's loadgroup."""
    at = name.rfind("@")
    if at > max(name.rfind("]"), name.rfind("::"), 0):
        name = name[:at]
    return f"{name[:-1]}-{suffix}]" if name.endswith("]") else f"{name}[{suffix}]"


def copy_of(item: pytest.Function, suffix: str) -> pytest.Function:
    """The same test, with one parameter more in its name. Its fixtures of function scope will be made anew."""
    name = named(item.name, suffix)
    clone: pytest.Function = type(item).from_parent(
        item.parent,
        name=item.name if is_of_unittest(item) else name,
        callspec=getattr(item, "callspec", None),
        fixtureinfo=item._fixtureinfo,
        originalname=item.originalname,
        **({} if is_found(item) else {"callobj": item.obj}),
    )
    clone.name = name
    set_id(clone, named(item.nodeid, suffix))
    clone.fixturenames = item.fixturenames
    clone.own_markers[:] = item.own_markers
    clone.keywords.update({name: True, **{marker.name: marker for marker in item.own_markers}})
    return clone


def is_of_unittest(item: pytest.Item) -> bool:
    """Whether a test is a method of a unittest.TestCase, which is made anew for each by the name of its method."""
    cls, unittest = getattr(item, "cls", None), sys.modules.get("unittest")
    return cls is not None and unittest is not None and issubclass(cls, unittest.TestCase)


def take_method_name(item: pytest.Item) -> None:
    """Give a copy of a method of unittest the method's name, by which it is found while it runs."""
    if is_of_unittest(item):
        _ = item.location  # it is kept, and so has the copy's name
        item.name = item.originalname  # type: ignore[attr-defined]


def set_id(item: pytest.Item, nodeid: str) -> None:
    """Since pytest 9.2 a node's id is made of its function and its parameters, whatever its name; --lf compares it."""
    if hasattr(item, "_id"):
        item._id = type(item._id).parse(nodeid)
    else:
        item._nodeid = nodeid  # type: ignore[attr-defined]


def is_found(item: pytest.Function) -> bool:
    """Whether pytest finds the function of a test by its name, as a rule; a method needs an instance of its own."""
    above = getattr(item.parent, "obj", None)
    return hasattr(above, item.originalname)
