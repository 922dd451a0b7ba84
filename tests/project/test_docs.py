"""Every example of the documentation runs, and its tables are those of the code."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import docker
import pytest
from grpc_tools import protoc

from pytest_egress import BAD_CERTIFICATES, cli
from pytest_egress.plugin.options import ACCEPTED_OPTIONS, pytest_addoption
from pytest_egress.targets.trust.runtimes import DIRECTORY, VARIABLES
from pytest_egress.traffic.cassettes.tape import tape_of
from tests.support.project import ROOT
from tests.support.runtimes import RUNTIMES

PROSE = sorted(
    [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")),
    ]
)
GUIDES = ["CONTRIBUTING.md", "docs/how-it-works.md"]
"""For contributors: every file that they name is of the project."""
PAGES = [
    "docs/addresses.md",
    "docs/faults.md",
    "docs/fixtures.md",
    "docs/protocols.md",
    "docs/routes.md",
    "docs/stacks.md",
    "docs/match.md",
    "docs/answer.md",
    "docs/assert.md",
    "docs/dns.md",
]
GUIDE = [
    "docs/coming-from.md",
    "docs/jobs/apis.md",
    pytest.param("docs/jobs/offline.md", marks=pytest.mark.docker),  # Compose, testcontainers
    "docs/jobs/outages.md",
    "docs/jobs/sent.md",
    "docs/raw.md",
    "docs/udp.md",
]
"""Pages whose examples start several images."""
STEPS = ["docs/start.md", "docs/read-a-failure.md", "docs/secrets.md", "docs/sweep.md"]
"""Pages whose examples are a file each; the text below one is what pytest says of it, and `...` stands for more."""
STAND_IN = re.compile(r'"(\w+):latest"')
"""What a page has for an image of its reader's: a test image has the same name."""
HEADER = "import docker, httpx, pytest\nfrom pytest_egress import Egress, Response, http_ok, log_line, port_open\n\n"
IMPORTS = re.compile(r"(?:(?:from|import) .*\n|\n)+\Z")
# Of docs/ci.md: `Charge`, and a view that charges.
DJANGO_PROJECT = {
    "pytest.ini": """
[pytest]
DJANGO_SETTINGS_MODULE = settings
asyncio_default_fixture_loop_scope = function
filterwarnings = error
""",
    "settings.py": """
SECRET_KEY = "of a test"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "payments.views"
INSTALLED_APPS = ["payments"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "db.sqlite3",
        "TEST": {"NAME": "test.sqlite3"},
    }
}
""",
    "payments/__init__.py": "",
    "payments/models.py": """
from django.db import models

class Charge(models.Model):
    amount = models.IntegerField()
""",
    "payments/views.py": """
import json
from django.http import JsonResponse
from django.urls import path
from payments.models import Charge

def charge(request):
    charge = Charge.objects.create(amount=json.loads(request.body)["amount"])
    return JsonResponse({"id": f"ch_{charge.pk}"})

urlpatterns = [path("v1/charges", charge)]
""",
}
FENCED = re.MULTILINE | re.DOTALL
NAMED = re.compile(
    r"`((?:[\w.-]+/)*[\w-]+\.(?:py|md)|(?:pytest_egress|tests)/[\w./-]+)(?:::([\w.]+))?`"
)
"""A file as pages name it, and a name in it: `gateway/dispatch.py::Dispatcher.serve`."""
WITH_NOTES = ["docs/engines.md", "docs/guarantees.md", "docs/protocols.md"]
NOTE = re.compile(r"^\[\^([\w-]+)\]: (.+\n(?: {4}.+\n)*)", re.MULTILINE)
"""A note: its name, and the tests that hold what refers to it."""
REFERENCE = re.compile(r"\[\^([\w-]+)\](?!:)")
ITEM = re.compile(r"^(?:\* .*\n(?: +\S.*\n)*|\| .*\n(?!\|-))", re.MULTILINE)
"""A bullet, or a row of a table that is not its head."""
NOT_PROMISED = {"What is no IP packet", "What is not seen"}
"""The sections of the guarantees that say what is not guaranteed."""
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", FENCED)


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str) -> list[str]:
    return PYTHON_BLOCK.findall(text_of(page))


def notes_of(page: str) -> dict[str, list[tuple[str, str]]]:
    """The notes of a page by name: for each, the files of tests that it names, with the tests."""
    return {
        name: re.findall(r"`([\w/]+\.py)::(test_\w+)`", text)
        for name, text in NOTE.findall(text_of(page))
    }


def items(section: str) -> list[str]:
    """The bullets of a section, and the rows of its tables without their heads."""
    return ITEM.findall(section)


def file_named(name: str) -> Path | None:
    """The file, or folder, that a page means: of the repository, of the package, or a test's wherever it lies."""
    at = [ROOT / name, ROOT / "pytest_egress" / name, ROOT / "tests" / name]
    if name.startswith("test_"):
        at += (ROOT / "tests").rglob(name)
    return next((path for path in at if path.exists()), None)


def defines(scope: ast.Module | ast.ClassDef, name: str) -> bool:
    """Whether a module or a class defines a name, or what follows a dot of it."""
    first, _, rest = name.partition(".")
    for node in scope.body:
        targets = getattr(node, "targets", [getattr(node, "target", node)])
        if first in [getattr(each, "id", getattr(each, "name", None)) for each in targets]:
            return not rest or (isinstance(node, ast.ClassDef) and defines(node, rest))
    return False


def as_module(page: str, image: str) -> str:
    """The page's examples as one test module: definitions as they are, bare lines as a test of their own."""
    parts = [HEADER]
    for number, block in enumerate(blocks(page)):
        if "def test_" in block or "@pytest.fixture" in block or IMPORTS.match(block):
            parts.append(block)
        elif "with Egress()" not in block:
            lines = "".join(f"    {line}\n" for line in block.splitlines())
            marker = "@pytest.mark.egress(assert_all_called=False)"
            parts.append(f"{marker}\ndef test_lines_{number}(egress):\n{lines}")
    return "\n\n".join(parts).replace("shop:latest", image)


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run_as_printed(
    page: str, pytester: pytest.Pytester, shop_image: str
) -> None:
    source = as_module(page, shop_image)
    pytester.makepyfile(test_page=source)

    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers")

    result.assert_outcomes(passed=source.count("def test_"))


STEP = re.compile(r"^```python\n# (\w+)\.py\n(.*?)^```(?:(?!^```).)*?^```text\n(.*?)^```", FENCED)
SECONDS = re.compile(r" *\b\d+\.\d+ (m?s)\b")


def steps(page: str) -> list[tuple[str, str, str]]:
    """Of each example of a page the name of its file, its code, and the text below it."""
    return STEP.findall(text_of(page))


def comparable(text: str) -> str:
    """What pytest said, or a page says it did, without durations and with the reader's images."""
    return SECONDS.sub(r" N \1", text.replace("pytest-egress-test/", ""))


def with_images(source: str, request: pytest.FixtureRequest) -> str:
    """The examples with test images in place of the reader's."""
    return STAND_IN.sub(lambda found: f'"{request.getfixturevalue(f"{found[1]}_image")}"', source)


@pytest.mark.usefixtures("engine_client", "curl_image")
@pytest.mark.parametrize("page", GUIDE)
def test_the_examples_of_a_job_run_as_printed(
    page: str, pytester: pytest.Pytester, request: pytest.FixtureRequest
) -> None:
    source = with_images(as_module(page, "shop:latest"), request)
    pytester.makepyfile(test_page=source)

    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers")

    outcomes = result.parseoutcomes()
    assert outcomes.keys() == {"passed"}
    assert outcomes["passed"] >= source.count("def test_")  # one is parametrized


@pytest.mark.usefixtures("engine_client", "curl_image")
@pytest.mark.parametrize(
    ("page", "number"),
    [(page, number) for page in STEPS for number in range(len(steps(page)))],
)
def test_a_step_of_a_page_ends_as_the_page_says(
    page: str,
    number: int,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # by which pytest cuts lines
    name, code, text = steps(page)[number]
    source = with_images(f"# {name}.py\n{code}", request)  # each line has its number
    pytester.path.joinpath(f"{name}.py").write_text(source)

    result = pytester.runpytest_subprocess("-p", "no:randomly")

    said = comparable(result.stdout.str())
    for part in comparable(text).split("...\n"):
        before, found, said = said.partition(part.rstrip("\n"))
        assert found, f"not said: {part}\nbut: {before}"


def test_the_examples_of_bad_certificates_run_as_printed(
    pytester: pytest.Pytester, shop_image: str
) -> None:
    source = as_module("docs/certificates.md", shop_image)
    pytester.makepyfile(test_page=source)

    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers")

    result.assert_outcomes(passed=source.count("def test_") + len(BAD_CERTIFICATES))


def test_the_text_of_an_acceptance_on_its_page_is_what_a_test_says(
    pytester: pytest.Pytester, shop_image: str
) -> None:
    (text,) = re.findall(
        r"^```text\n(\S+ accepted .*?)\n```", text_of("docs/certificates.md"), FENCED
    )
    pytester.makepyfile(
        test_shop=f"""


        def test_the_shop_verifies(egress):
            program = "import requests as r; r.post('https://api.stripe.com/v1/charges', verify=False)"
            egress.intercept_https("api.stripe.com", certificate="expired")
            egress.run({shop_image!r}, ["python", "-c", program])
        """
    )

    result = pytester.runpytest_subprocess("-p", "no:randomly")

    said = result.stdout.str()
    declared = re.compile(r"test_shop\.py:\d+")
    assert declared.sub("", text) in declared.sub("", said)


@pytest.mark.usefixtures("curl_image")
def test_the_recipe_of_the_lock_ends_as_its_page_says(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    page = text_of("docs/lock.md")
    first, second = blocks("docs/lock.md")
    ((ini, content, failure, difference),) = re.findall(
        r"^```ini\n(.*?)^```.*?^```toml\n(.*?)^```.*?^```text\n(.*?)^```.*?^```diff\n(.*?)^```",
        page,
        FENCED,
    )
    pytester.path.joinpath("pytest.ini").write_text(ini)
    test, lock = pytester.path / "test_shop.py", pytester.path / "egress.lock"
    test.write_text(first)
    pytester.runpytest_subprocess("--egress-lock=update").assert_outcomes(passed=1)
    assert lock.read_text() == content
    main = lock.rename(pytester.path / "main.lock")
    lock.write_text(content)
    test.write_text(second)

    assert failure in pytester.runpytest_subprocess().stdout.str()
    pytester.runpytest_subprocess("--egress-lock=update").assert_outcomes(passed=1)
    assert cli.main(["diff", str(main), str(lock)]) == 1
    assert capsys.readouterr().out.endswith(difference)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.usefixtures("curl_image")
def test_the_examples_of_proxies_run_as_printed(pytester: pytest.Pytester) -> None:
    source = as_module("docs/proxy.md", "")
    pytester.makepyfile(test_page=source)

    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers")

    result.assert_outcomes(passed=source.count("def test_"))


@pytest.mark.usefixtures("curl_image")
def test_the_text_about_a_proxy_on_its_page_is_what_a_test_says(pytester: pytest.Pytester) -> None:
    (text,) = re.findall(r"^```text\n(1 unrouted .*?)\n```", text_of("docs/proxy.md"), FENCED)
    pytester.makepyfile(
        test_shop="""
        def test_a_charge(egress):
            env = {"HTTPS_PROXY": "http://proxy.corp.test:3128"}
            egress.run("curlimages/curl", "curl -sS https://api.stripe.com/v1/charges", env=env)
        """
    )

    result = pytester.runpytest_subprocess("-p", "no:randomly")

    assert text in result.stdout.str()


def test_the_examples_of_cassettes_run_as_printed(
    pytester: pytest.Pytester, shop_image: str
) -> None:
    page = text_of("docs/cassettes.md")
    files = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", page, FENCED)
    for name, content in files:
        pytester.path.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        pytester.path.joinpath(name).write_text(content)
        assert tape_of(content, name).recordings
    source = as_module("docs/cassettes.md", shop_image)
    pytester.makepyfile(test_shop=source)

    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers")

    assert len(files) == 6
    result.assert_outcomes(passed=source.count("def test_"))


def test_the_examples_of_grpc_run_as_printed(pytester: pytest.Pytester, grpc_image: str) -> None:
    folder = ROOT / "tests/images/grpc"
    (service,) = re.findall(r"^```protobuf\n(.*?)^```", text_of("docs/grpc.md"), FENCED)
    assert service in (folder / "payments.proto").read_text()
    places = [f"-I{folder}", f"--python_out={pytester.path}", f"--grpc_python_out={pytester.path}"]
    assert protoc.main(["protoc", *places, "payments.proto"]) == 0
    source = as_module("docs/grpc.md", grpc_image)
    pytester.makepyfile(test_page=source)

    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers")

    result.assert_outcomes(passed=source.count("def test_"))


@pytest.mark.usefixtures("engine_client", "curl_image")
def test_the_examples_of_openapi_run_as_printed(pytester: pytest.Pytester) -> None:
    (document,) = re.findall(r"^```yaml\n(.*?)^```", text_of("docs/openapi.md"), FENCED)
    pytester.path.joinpath("charges.yaml").write_text(document)
    source = as_module("docs/openapi.md", "")
    pytester.makepyfile(test_page=source)

    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers")

    result.assert_outcomes(passed=3)


def test_the_examples_of_websockets_run_as_printed(
    pytester: pytest.Pytester, websocket_image: str
) -> None:
    source = as_module("docs/websocket.md", "").replace("feed:latest", websocket_image)
    pytester.makepyfile(test_page=source)

    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers")

    result.assert_outcomes(passed=6)


def test_the_examples_of_the_readme_run_as_they_stand(
    pytester: pytest.Pytester, curl_image: str
) -> None:
    first, start = blocks("README.md")
    pytester.makepyfile(test_shop=first, test_outbound=start)

    result = pytester.runpytest_subprocess("-p", "no:randomly")

    result.assert_outcomes(passed=3)


@pytest.fixture
def django_project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder for tests that holds the project of docs/ci.md."""
    for name, content in DJANGO_PROJECT.items():
        (pytester.path / name).parent.mkdir(exist_ok=True)
        (pytester.path / name).write_text(content)
    return pytester


@pytest.mark.plugins("asyncio", "django")
def test_the_examples_beside_other_plugins_run_as_printed(
    django_project: pytest.Pytester, shop_image: str
) -> None:
    django_project.makepyfile(test_page=as_module("docs/ci.md", shop_image))

    result = django_project.runpytest_subprocess("-p", "no:randomly")

    result.assert_outcomes(passed=3)


@pytest.mark.plugins("asyncio", "django")
def test_without_a_transaction_of_its_own_a_handler_fails_as_the_page_says(
    django_project: pytest.Pytester, shop_image: str
) -> None:
    page = as_module("docs/ci.md", shop_image).replace("(transaction=True)", "")
    django_project.makepyfile(test_page=page)

    result = django_project.runpytest_subprocess("-k", "is_a_row")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines("*OperationalError: database is locked")


def test_the_failure_in_the_readme_is_what_a_test_says(
    pytester: pytest.Pytester, curl_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # by which pytest cuts the summary
    first, _ = blocks("README.md")
    refund = "curl --data amount=4200 https://api.stripe.com/v1/refunds"
    both = f"""f"sh -c '{{charge}}; {refund}'\""""
    pytester.makepyfile(test_shop=first.replace("charge)", f"{both})"))
    (failure,) = re.findall(r"^```text\n(\d+ unrouted .*?)^```", text_of("README.md"), FENCED)
    (summary,) = re.findall(r"^ *(FAILED .*)$", text_of("docs/ci.md"), re.MULTILINE)

    result = pytester.runpytest_subprocess("-p", "no:randomly")

    assert failure in result.stdout.str()
    assert summary in result.outlines


def test_the_matrix_in_the_readme_is_that_of_its_charge(
    pytester: pytest.Pytester, curl_image: str
) -> None:
    _, start = blocks("README.md")
    (matrix,) = re.findall(r"^```text\n( +503 .*?)^```", text_of("README.md"), FENCED)
    faults = ["503", "429", "reset", "html", "empty", "lost", "cut", "silence"]
    marked = f"@pytest.mark.egress_sweep(faults={faults})\ndef test_a_charge"
    pytester.makepyfile(
        test_outbound=f"import pytest\n\n{start.replace('def test_a_charge', marked)}"
    )

    result = pytester.runpytest_subprocess("-p", "no:randomly", "-k", "a_charge")

    assert matrix in result.stdout.str()


@pytest.mark.docker  # Podman gives another name to what is built
def test_the_image_of_the_examples_is_built_by_the_line_that_the_page_has(
    engine_client: docker.DockerClient,
) -> None:
    (line,) = re.findall(r"^\$ (docker build .*)$", text_of("docs/fixtures.md"), re.MULTILINE)
    *command, source = shlex.split(line)
    repository, _, folder = source.partition("#main:")
    assert repository.endswith(".git")
    name = f"pytest-egress-docs-{uuid.uuid4().hex[:8]}"
    command[command.index("shop:latest")] = name

    done = subprocess.run(
        [*command, ROOT / folder], capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    image = engine_client.images.get(name)
    engine_client.images.remove(name)
    assert image.attrs["Config"]["WorkingDir"] == "/srv"


def test_the_script_of_the_fixtures_page_runs_without_pytest(shop_image: str) -> None:
    (script,) = (block for block in blocks("docs/fixtures.md") if "with Egress()" in block)
    script = script.replace("shop:latest", shop_image)

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (0, "charged ch_1\n\n"), done.stderr


def test_the_table_of_variables_is_that_of_the_code() -> None:
    rows = [
        f"| `{variable.name}` | `{variable.value(DIRECTORY)}` | {', '.join(variable.runtimes)} |"
        for variable in VARIABLES
    ]

    assert "\n".join(rows) in (ROOT / "docs/options.md").read_text()


def test_the_table_of_runtimes_is_that_of_the_code() -> None:
    page = (ROOT / "docs/trust.md").read_text()
    rows = re.findall(
        r"^\| (.+?) \| (.+?) \| (adds|replaces|extends) \| (.+?) \|$", page, re.MULTILINE
    )
    assert [
        (name, by.strip("`"), effect, how != "not tested") for name, by, effect, how in rows
    ] == [(runtime.name, runtime.by, runtime.effect, runtime.tested) for runtime in RUNTIMES]


def test_the_demo_shows_what_it_says(shop_image: str, clients_image: str) -> None:
    done = subprocess.run(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "As it should be" in done.stdout


@pytest.mark.parametrize("page", WITH_NOTES)
def test_every_note_of_a_page_names_tests_that_are_there(page: str) -> None:
    notes = notes_of(page)
    assert len(notes) > 5
    assert [name for name, tests in notes.items() if not tests] == []
    for module, test in sorted({each for tests in notes.values() for each in tests}):
        path = ROOT / "tests" / module
        assert path.is_file(), module
        assert defines(ast.parse(path.read_text()), test), f"{module} has no {test}"


@pytest.mark.parametrize("page", WITH_NOTES)
def test_every_note_of_a_page_is_there_once_and_is_referred_to(page: str) -> None:
    text = text_of(page)
    defined = NOTE.findall(text)
    assert sorted({name for name, _ in defined}) == sorted(name for name, _ in defined)
    assert set(REFERENCE.findall(text)) == notes_of(page).keys()


def test_every_guarantee_has_a_note() -> None:
    sections = re.split(r"^## ", text_of("docs/guarantees.md"), flags=re.MULTILINE)[1:]
    assert len(sections) > len(NOT_PROMISED) + 5
    promised = [
        item
        for section in sections
        if section.partition("\n")[0] not in NOT_PROMISED
        for item in items(section)
    ]
    assert len(promised) > 90
    assert [item for item in promised if not REFERENCE.search(item)] == []


def test_every_row_about_a_client_or_a_suite_has_a_note() -> None:
    page = text_of("docs/protocols.md")
    of_clients = page[page.index("## What was run against what") : page.index("## HTTP/1.1")]
    rows = items(of_clients)
    assert len(rows) > 15
    assert [row for row in rows if not REFERENCE.search(row)] == []


@pytest.mark.parametrize("page", PROSE)
def test_what_a_page_names_of_the_package_is_there(page: str) -> None:
    named = {
        (name, inner)
        for name, inner in NAMED.findall(text_of(page))
        if "/" in name or page in GUIDES
    }
    gone = [name for name, _ in named if file_named(name) is None]
    assert gone == []
    for name, inner in named:
        if inner and (path := file_named(name)) is not None:
            assert defines(ast.parse(path.read_text()), inner), f"{name} has no {inner}"


def test_the_guides_lead_through_every_room() -> None:
    package = ROOT / "pytest_egress"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    way, _, _ = text_of("docs/how-it-works.md").partition("## Limits")
    named = {path.parent.name for name, _ in NAMED.findall(way) if (path := file_named(name))}
    assert rooms - named == set()


def test_every_option_is_in_the_table() -> None:
    parser = pytest.Parser(_ispytest=True)
    pytest_addoption(parser)
    page = text_of("docs/options.md")
    names = [name for option in parser.getgroup("egress").options for name in option.names()]
    missing = [name for name in names if f"`{name}" not in page]
    missing += [name for name in parser._inidict if f"`{name}`" not in page]
    missing += [name for name in ACCEPTED_OPTIONS if f"@pytest.mark.egress({name}=" not in page]
    assert (len(names) > 5, missing) == (True, [])


def test_every_command_that_a_page_names_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    named = {
        command
        for page in PROSE
        for command in re.findall(r"(?:`|\$ (?:\w+=\S+ )?)pytest-egress ([a-z]+)", text_of(page))
    }
    assert {"audit", "clean", "diff", "doctor", "lock", "record", "watch"} <= named
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    (listed,) = re.findall(r"\{([a-z,]+)\}\s+\.\.\.", capsys.readouterr().out)
    assert named <= {*listed.split(",")}
