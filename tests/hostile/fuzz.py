"""Fuzz targets: any bytes, for the parsers of what a container sends or a user declares.

`make fuzz` feeds them random bytes. A coverage-guided engine takes each as it is, such as
`atheris.Setup(sys.argv, TARGETS["address"])`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.unit.traffic import (
    test_address,
    test_clienthello,
    test_content_coding,
    test_dns,
    test_forms,
    test_grpc,
    test_http2_frames,
    test_websocket,
)

SECONDS: Final = 10.0  # for each target, without an argument
MAX_BYTES: Final = 8192


def target(test: Any) -> Callable[[bytes], bytes | None]:
    """What a property test does with the bytes that its values are made from."""
    found: Callable[[bytes], bytes | None] = test.hypothesis.fuzz_one_input
    return found


TARGETS: Final[Mapping[str, Callable[[bytes], bytes | None]]] = {
    "address": target(
        test_address.test_any_text_is_an_address_with_a_normal_form_or_an_address_error
    ),
    "host": target(
        test_address.test_any_text_has_a_normal_form_that_is_its_own_or_is_an_address_error
    ),
    "glob": target(test_address.test_a_glob_matches_like_a_regular_expression),
    "network": target(test_address.test_a_network_matches_what_ipaddress_says_is_in_it),
    "hello": target(
        test_clienthello.test_any_bytes_are_a_hello_or_ask_for_more_or_are_a_client_hello_error
    ),
    "dns": target(test_dns.test_any_bytes_are_answered_or_dropped),
    "websocket": target(test_websocket.test_any_fields_are_a_handshake_or_a_handshake_error),
    "websocket frames": target(test_websocket.test_any_bytes_are_frames_or_the_end),
    "grpc messages": target(
        test_grpc.test_any_bytes_are_messages_or_ask_for_more_or_are_a_status_error
    ),
    "grpc fields": target(
        test_grpc.test_any_fields_have_metadata_a_status_and_a_timeout_or_are_a_status_error
    ),
    "content coding": target(
        test_content_coding.test_any_body_and_any_field_are_bytes_or_a_content_error
    ),
    "form": target(test_forms.test_any_bytes_are_a_form_or_a_content_error),
    "cookies": target(test_forms.test_any_text_is_cookies),
    "frames": target(
        test_http2_frames.test_any_bytes_are_frames_or_ask_for_more_or_are_a_frame_too_long_error
    ),
}


def run(name: str, seconds: float) -> None:
    """Feed one target; what it raises ends the run, with the bytes that made it."""
    deadline, inputs = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        data = os.urandom(int.from_bytes(os.urandom(2), "big") % MAX_BYTES)
        try:
            TARGETS[name](data)
        except BaseException:
            print(f"{name} fails for bytes.fromhex({data.hex()!r})", file=sys.stderr)
            raise
        inputs += 1
    print(f"{name}: {inputs} inputs", flush=True)


if __name__ == "__main__":
    for each in TARGETS:
        run(each, float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
