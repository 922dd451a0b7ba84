"""Fuzz targets: any bytes, for the parsers of what a container sends or a user declares.

Each is a property test. `make fuzz` feeds them for as long as it is told, `test_fuzz.py` for a moment in each run of
the suite. One that takes bytes starts from its corpus, `corpus/<target>/`, and is fed what becomes of that: a finding
is a file there from then on. Any other is fed by hypothesis, and a finding becomes an `@example` of its test.

A coverage-guided engine takes each as it is, such as `atheris.Setup(sys.argv, TARGETS["address"])`.
"""

from __future__ import annotations

import inspect
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.unit.traffic import test_address, test_grpc, test_smtp, test_websocket
from tests.unit.traffic.dns import test_records, test_resolver
from tests.unit.traffic.http import (
    test_content_coding,
    test_forms,
    test_head_faults,
    test_http1,
    test_http1_plain,
    test_http2_bytes,
    test_http2_frames,
)
from tests.unit.traffic.kafka import test_batches, test_wire
from tests.unit.traffic.tls import test_hello

SECONDS: Final = 10.0  # for each target, without an argument
MAX_BYTES: Final = 8192
LEAST: Final = 20  # inputs beside the corpus, on however slow a machine
MOST_CHANGES: Final = 8  # of one input
CORPUS: Final = Path(__file__).with_name("corpus")


@dataclass(frozen=True)
class FuzzTarget:
    """A property test that is fed bytes.

    Attributes:
        feed: Runs the test for some bytes; it raises what it finds.
        takes_bytes: Whether bytes are what the test is about. Otherwise hypothesis makes its values from them.
    """

    feed: Callable[[bytes], object]
    takes_bytes: bool

    def __call__(self, data: bytes) -> None:
        """Feed it, as an engine of coverage does."""
        self.feed(data)


def target(test: Any) -> FuzzTarget:
    """The target that a property test is."""
    inner, made = test.hypothesis.inner_test, test.hypothesis.fuzz_one_input
    parameters = inspect.signature(inner).parameters.values()
    takes_bytes = [each.annotation for each in parameters] == ["bytes"]
    return FuzzTarget(inner if takes_bytes else made, takes_bytes)


TARGETS: Final[dict[str, FuzzTarget]] = {
    "address": target(
        test_address.test_any_text_is_an_address_with_a_normal_form_or_an_address_error
    ),
    "host": target(
        test_address.test_any_text_has_a_normal_form_that_is_its_own_or_is_an_address_error
    ),
    "glob": target(test_address.test_a_glob_matches_like_a_regular_expression),
    "network": target(test_address.test_a_network_matches_what_ipaddress_says_is_in_it),
    "hello": target(
        test_hello.test_any_bytes_are_a_hello_or_ask_for_more_or_are_a_client_hello_error
    ),
    "dns": target(test_resolver.test_any_bytes_are_answered_or_dropped),
    "records": target(test_records.test_any_bytes_are_answered_or_dropped_where_a_name_has_records),
    "record text": target(test_records.test_any_text_is_records_that_can_be_sent_or_is_refused),
    "grpc-messages": target(
        test_grpc.test_any_bytes_are_messages_or_ask_for_more_or_are_a_status_error
    ),
    "grpc-fields": target(
        test_grpc.test_any_fields_have_metadata_a_status_and_a_timeout_or_are_a_status_error
    ),
    "websocket": target(test_websocket.test_any_fields_are_a_handshake_or_a_handshake_error),
    "websocket-frames": target(test_websocket.test_any_bytes_are_frames_or_the_end),
    "head": target(test_head_faults.test_any_head_has_one_meaning_or_is_refused),
    "http1": target(test_http1.test_any_bytes_are_the_same_requests_however_they_are_cut),
    "plain": target(test_http1_plain.test_any_bytes_are_plain_only_if_h11_reads_the_same),
    "http2": target(test_http2_bytes.test_any_bytes_bring_the_same_however_they_are_cut),
    "coding": target(test_content_coding.test_any_bytes_are_decoded_or_are_a_content_error),
    "codings": target(test_content_coding.test_any_body_and_any_field_are_bytes_or_a_content_error),
    "form": target(test_forms.test_any_bytes_are_a_form_or_a_content_error),
    "form-type": target(test_forms.test_any_body_of_any_type_is_a_form_or_a_content_error),
    "cookies": target(test_forms.test_any_text_is_cookies),
    "kafka-request": target(
        test_wire.test_any_bytes_are_a_request_or_ask_for_more_or_are_a_kafka_error
    ),
    "kafka-batch": target(test_batches.test_any_bytes_are_batches_or_a_kafka_error),
    "kafka-records": target(test_batches.test_a_batch_with_any_records_is_read_or_a_kafka_error),
    "smtp": target(test_smtp.test_any_bytes_have_replies_that_are_replies_and_never_raise),
    "smtp-command": target(test_smtp.test_any_line_is_a_command_or_an_smtp_error),
    "http2-frames": target(
        test_http2_frames.test_any_bytes_are_frames_or_ask_for_more_or_are_a_frame_too_long_error
    ),
}


def corpus(name: str) -> list[bytes]:
    """The inputs that are kept for a target, and nothing at all."""
    return [b"", *(path.read_bytes() for path in sorted((CORPUS / name).glob("*")))]


def changed(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """One of some inputs with a few changes: bytes of its own or another's are put elsewhere, left out, or new."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, MOST_CHANGES)):
        at, size = rng.randint(0, len(data)), rng.choice((1, 1, 1, 2, 4, 16, 256))
        other = rng.choice((data, rng.choice(seeds)))
        start = rng.randint(0, len(other))
        new = rng.choice((b"", rng.randbytes(size), other[start : start + size]))
        data[at : at + rng.choice((0, size, len(new)))] = new
    return bytes(data[:MAX_BYTES])


def feed(name: str, data: bytes) -> None:
    """Feed a target; what it raises is told with the bytes that made it."""
    try:
        TARGETS[name](data)
    except BaseException as error:
        kept = "keep it as a file of" if TARGETS[name].takes_bytes else "make it an @example, not"
        text = f"{name} fails for bytes.fromhex({data.hex()!r}): {kept} {CORPUS.name}/{name}/"
        raise AssertionError(text) from error


def run(name: str, seconds: float, least: int = LEAST) -> int:
    """Feed a target its corpus, and then for so long what is made of that. Return how many inputs it was fed.

    Args:
        least: How many inputs it is fed beside the corpus, however long that takes.
    """
    deadline, rng, seeds = time.monotonic() + seconds, random.Random(), corpus(name)
    for data in seeds:
        feed(name, data)
    inputs = len(seeds)
    while time.monotonic() < deadline or inputs < len(seeds) + least:
        is_new = not TARGETS[name].takes_bytes
        feed(name, rng.randbytes(rng.randrange(MAX_BYTES)) if is_new else changed(seeds, rng))
        inputs += 1
    return inputs


def main() -> None:
    """Feed all targets. usage: fuzz.py [SECONDS for each [PLAIN requests at least]]"""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    plain = int(sys.argv[2]) if len(sys.argv) > 2 else LEAST
    for each in TARGETS:
        fed = run(each, seconds, plain if each == "plain" else LEAST)
        print(f"{each}: {fed} inputs", flush=True)


if __name__ == "__main__":
    main()
