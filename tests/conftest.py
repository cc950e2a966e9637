"""Rules for the whole test run."""

from collections.abc import Generator

import hypothesis
import pytest

# A busy machine is not a wrong answer: no test fails for its time.
hypothesis.settings.register_profile("tierwise", deadline=None)
hypothesis.settings.load_profile("tierwise")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """A test that did not run proves nothing: a session with a skipped or excused test fails."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and any(reporter.stats.get(how) for how in ("skipped", "xfailed", "xpassed")):
        reporter.write_line("")
        reporter.write_line("Skipped or excused tests count as failures here.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
