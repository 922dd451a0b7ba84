"""Secrets that are known by their form alone: nothing else looks like them, whatever their name is.

Each begins with characters that hardly stand anywhere else, so that a text without any costs next to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

CREDENTIALS: Final = re.compile(
    r"\b([Bb]earer |(?:[Pp]roxy-)?[Aa]uthorization: (?:[A-Za-z]{1,20} )?)([^\s<\"']{16,8192})"
)
"""Those of HTTP (RFC 9110 section 11.4) in a text of any kind, such as the log of a client."""

USER_INFO: Final = re.compile(
    r"(://[^\s/?#@:<>\"']{0,64}:)(?![^\s/@]{0,4}\.\.\.\()([^\s/?#@<>\"']{1,256})(?=@)"
)
"""The password in a URL (RFC 3986 section 3.2.1), that is no mask."""

Mask = Callable[[str], str]
"""Makes what is shown in place of a secret."""

BEFORE: Final = ("/services/", "/bot", "/webhooks/")  # what is no part of the secret
SHAPES: Final = re.compile(
    r"/services/T[A-Z0-9]{3,20}/B[A-Z0-9]{3,20}/[A-Za-z0-9]{8,64}"  # an incoming webhook of Slack
    r"|/bot[0-9]{3,20}(?::|%3[Aa])[\w-]{3,64}(?![^/?\s\"'])"  # the token of a bot of Telegram
    r"|/webhooks/[0-9]{15,20}/[\w-]{40,100}"  # a webhook of Discord
    r"|sk_live_(?<![\w-]sk_live_)[A-Za-z0-9]{16,200}"
    r"|rk_live_(?<![\w-]rk_live_)[A-Za-z0-9]{16,200}"
    r"|gh[oprsu]_(?<![\w-].{4})[A-Za-z0-9]{36,255}"
    r"|github_pat_\w{40,255}"
    r"|glpat-(?<![\w-]glpat-)[\w-]{20,64}"
    r"|xox[abeoprs]-(?<![\w-].{5})[\w-]{20,255}"
    r"|sk-(?:ant|proj)-[\w-]{20,255}"
    r"|AIza(?<![\w-]AIza)[\w-]{35}(?![\w-])"
    r"|SG\.(?<![\w-]SG\.)[\w-]{20,64}\.[\w-]{40,64}"
    r"|eyJ(?<![\w-]eyJ)[\w-]{10,4096}\.eyJ[\w-]{10,4096}\.[\w-]{16,4096}",  # a signed token (RFC 7519)
    re.ASCII,
)


HINTS: Final = (
    *("/services/T", "/bot", "/webhooks/", "k_live_", "gho_", "ghp_", "ghr_", "ghs_", "ghu_"),
    *("github_pat_", "glpat-", "xox", "sk-ant-", "sk-proj-", "AIza", "SG.", "eyJ"),
    *("earer ", "uthorization: "),
)
"""One of them is in every shape, and in a long text they are found faster than the expression is matched."""

SHORTEST: Final = 11  # characters of a text that can have one
LONG: Final = 200


def without_shapes(text: str, mask: Mask) -> str:
    if "@" in text and "://" in text:
        text = USER_INFO.sub(lambda found: found[1] + mask(found[2]), text)
    if len(text) < SHORTEST or (len(text) > LONG and not any(hint in text for hint in HINTS)):
        return text
    text = CREDENTIALS.sub(lambda found: found[1] + mask(found[2]), text)
    return SHAPES.sub(lambda found: masked(found[0], mask), text)


def masked(found: str, mask: Mask) -> str:
    before = next((each for each in BEFORE if found.startswith(each)), "")
    return before + mask(found.removeprefix(before))
