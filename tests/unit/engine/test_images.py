"""How far the pull of an image is."""

from __future__ import annotations

from pytest_egress.engine.images import PullProgress


def test_a_pull_says_how_many_bytes_have_come() -> None:
    pull = PullProgress("shop")
    step = {
        "id": "1",
        "status": "Downloading",
        "progressDetail": {"current": 10**6, "total": 10**7},
    }
    assert pull.take_step({"status": "Pulling fs layer", "id": "1"}) == "pulling shop"
    assert pull.take_step(step) == "pulling shop: 1.0 of 10.0 MB"
    assert (
        pull.take_step({"status": "Download complete", "id": "1"})
        == "pulling shop: 10.0 of 10.0 MB"
    )
    assert pull.take_step({"status": "Extracting", "id": "1"}) == "pulling shop: 10.0 of 10.0 MB"
