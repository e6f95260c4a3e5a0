"""The pytest plugin, in test suites of its own."""

from __future__ import annotations

import pytest
from conftest import SPACE

SUITE = """
import pytest

@pytest.mark.spacehost(tier="free", quota={"tiers": {"free": {"quota": "11s"}}}, gpus="mock:2xH200")
def test_limits(spacehost_host, spacehost_space, spacehost_client):
    assert len(spacehost_host.gpus()) == 2
    assert spacehost_space.gradio and spacehost_space.isolation == "none"
    assert spacehost_space.url == spacehost_host.url
    try:
        spacehost_client.predict(api_name="/overstay")
    except Exception:
        pass
    spacehost_client.predict(21, api_name="/double")

@pytest.mark.spacehost(gpu="mock:1xH200")
def test_unknown_setting(spacehost_client):
    pass
"""


def test_a_failed_test_shows_the_limit_and_the_output(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    pytester.makeini(f"[pytest]\nspacehost_space = {SPACE}\n")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist", "--spacehost-isolation=none")
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.re_match_lines_random([
        r"-+ Limits that spacehost enforced during the test -+",
        r"space\.overstay: lease \w+ expired after 2 s of 2 s declared: the declared duration was exceeded; raise @spaces\.GPU\(duration=\.\.\.\).*",
        r"space\.double: call of local refused: .*",
        r"-+ Output of the Space during the test -+",
        r"space: GPU time is over: 2 s declared, .*",
        r"@pytest\.mark\.spacehost does not know gpu; use keyword arguments out of space, gpus, tier, .*",
    ])


def test_a_space_that_does_not_start_fails_each_test_with_its_error(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CI", "BUILD_NUMBER"):  # with one of these, pytest repeats whole errors in its summary
        monkeypatch.delenv(variable, raising=False)
    pytester.makepyfile("def test_a(spacehost_client): pass\ndef test_b(spacehost_space): pass\n")
    space = pytester.mkdir("broken")
    (space / "README.md").write_text((SPACE / "README.md").read_text())
    (space / "app.py").write_text("raise RuntimeError('the weights are missing')\n")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist", "--spacehost-space=broken")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*Space broken did not start: RUNTIME_ERROR*", "*RuntimeError: the weights are missing"])
    result.stdout.no_fnmatch_line("*_host.py*")
    assert result.stdout.str().count("Space broken did not start") == 2, "each test shows the error once"


def test_options_and_markers_are_listed(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--help")
    for option in ("space", "gpus", "tier", "isolation", "python"):
        result.stdout.fnmatch_lines([f"*--spacehost-{option}=*"])
    pytester.runpytest_subprocess("--markers", "--strict-markers").stdout.fnmatch_lines(["@pytest.mark.spacehost(space, gpus, tier*"])
