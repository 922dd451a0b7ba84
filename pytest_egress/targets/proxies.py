"""The environment variables by which a container's programs find a proxy."""

from __future__ import annotations

from collections.abc import Mapping


def proxies_in(env: Mapping[str, str]) -> set[tuple[str, str]]:
    """The names and values of the variables that name a proxy: HTTPS_PROXY, http_proxy, npm_config_https_proxy, ...

    NO_PROXY and its like name the hosts that are dialled without one.
    """
    return {(name, value) for name, value in env.items() if value and names_proxy(name)}


def names_proxy(variable: str) -> bool:
    words = variable.lower().split("_")
    return len(words) > 1 and words[-1] == "proxy" and words[-2] != "no"
