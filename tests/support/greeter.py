"""The code that protoc makes of `images/grpc/greeter.proto`: `pb`, its messages, and `pb_grpc`, its service."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from grpc_tools import protoc

TESTS = Path(__file__).parents[1]
PROTO = TESTS / "images" / "grpc" / "greeter.proto"


def generated(folder: str) -> tuple[Any, Any]:
    """Make the code in a folder, and import it."""
    made = protoc.main(
        [
            "protoc",
            f"-I{PROTO.parent}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            PROTO.name,
        ]
    )
    assert made == 0
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("greeter_pb2"), importlib.import_module("greeter_pb2_grpc")
    finally:
        sys.path.remove(folder)


with tempfile.TemporaryDirectory() as made:
    pb, pb_grpc = generated(made)
