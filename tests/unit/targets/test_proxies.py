from __future__ import annotations

from pytest_egress.targets.proxies import proxies_in


def test_the_variables_of_a_proxy_are_those_whose_name_says_so() -> None:
    env = {
        "HTTPS_PROXY": "http://proxy.test:3128",
        "http_proxy": "proxy.test:3128",
        "npm_config_https_proxy": "http://proxy.test",
        "ALL_PROXY": "",
        "NO_PROXY": "localhost,proxy.test",
        "no_proxy": "proxy.test:3128",
        "npm_config_no_proxy": "proxy.test",
        "CASINO_PROXY": "http://casino.test",
        "PATH": "/bin",
    }
    assert proxies_in(env) == {
        ("HTTPS_PROXY", "http://proxy.test:3128"),
        ("http_proxy", "proxy.test:3128"),
        ("npm_config_https_proxy", "http://proxy.test"),
        ("CASINO_PROXY", "http://casino.test"),
    }
