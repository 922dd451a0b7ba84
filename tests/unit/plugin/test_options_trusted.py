"""Paths that a test wants trusted have to be absolute."""

from __future__ import annotations

import pytest


def test_a_path_of_the_ini_that_is_not_absolute_is_a_usage_error(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]\negress_trust = mine.pem\n")
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*egress_trust in *: 'mine.pem' is no absolute path of a file*"])


@pytest.mark.slow
def test_a_marker_with_a_path_that_is_not_absolute_is_an_error_of_the_collection(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.egress_container("shop:latest", trust=["mine.pem"])
        def test_it(egress_container): ...
        """
    )
    result = pytester.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*trust=[[]'mine.pem'[]]: it takes the absolute paths of files*"])
