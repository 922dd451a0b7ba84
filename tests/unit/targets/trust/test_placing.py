"""Variables of images and tests beside ours."""

from __future__ import annotations

import pytest

from pytest_egress.targets.trust import runtimes

# Variables.


def test_variables_of_the_image_and_the_test_are_kept_and_options_are_added_to() -> None:
    ours = {each.name: each.value("/our") for each in runtimes.VARIABLES}
    java = ours.pop("JAVA_TOOL_OPTIONS")
    image = {"PATH": "/bin", "PIP_CERT": "/image.pem", "JAVA_TOOL_OPTIONS": "-Xmx64m"}
    user = {"CURL_CA_BUNDLE": "", "RETRIES": "3"}
    expected = {**ours, **user, "JAVA_TOOL_OPTIONS": f"-Xmx64m {java}"}
    del expected["PIP_CERT"]
    assert runtimes.environment(image, user, "/our") == expected
    mine = {"JAVA_TOOL_OPTIONS": "-Djavax.net.ssl.trustStore=/mine.jks"}
    assert runtimes.environment(image, mine, "/our").items() >= mine.items()


@pytest.mark.parametrize(
    ("image_env", "user_env", "sentences"),
    [
        ({}, {}, []),
        ({"PATH": "/bin"}, {"RETRIES": "3"}, []),
        (
            {},
            {"SSL_CERT_FILE": "/x.pem"},
            ["SSL_CERT_FILE='/x.pem' is set by the test, and was kept"],
        ),
        (
            {"SSL_CERT_FILE": "/x.pem"},
            {},
            ["SSL_CERT_FILE='/x.pem' is set by the image, and was kept"],
        ),
        (
            {"SSL_CERT_FILE": "/image.pem"},
            {"SSL_CERT_FILE": ""},
            ["SSL_CERT_FILE='' is set by the test, and was kept"],
        ),
        ({"SSL_CERT_FILE": "/image.pem"}, {"SSL_CERT_FILE": "/etc/ssl/cert.pem"}, []),
        ({}, {"CURL_CA_BUNDLE": "/etc/pytest-egress/bundle.pem"}, []),
        ({}, {"NODE_EXTRA_CA_CERTS": "/pytest-egress/ca.pem"}, []),
        ({"JAVA_TOOL_OPTIONS": "-Xmx64m"}, {}, []),
        (
            {"PIP_CERT": "/pip.pem"},
            {"JAVA_TOOL_OPTIONS": "-Djavax.net.ssl.trustStore=/mine.jks"},
            [
                "PIP_CERT='/pip.pem' is set by the image, and was kept",
                "JAVA_TOOL_OPTIONS='-Djavax.net.ssl.trustStore=/mine.jks' is set by the test, and was kept",
            ],
        ),
        (
            {},
            {"JAVA_TOOL_OPTIONS": "-Djavax.net.ssl.trustStore=/etc/pytest-egress/truststore.jks"},
            [],
        ),
    ],
)
def test_a_variable_that_leads_past_the_ca_is_told(
    image_env: dict[str, str], user_env: dict[str, str], sentences: list[str]
) -> None:
    assert runtimes.defeated(image_env, user_env, ["/etc/ssl/cert.pem"]) == sentences
