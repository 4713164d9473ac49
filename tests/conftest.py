from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import stamina
from hypothesis import HealthCheck, settings

from antflow.testing import backends as virtual_backends

# Deadlines would measure the machine. The function-scoped fixture that hypothesis warns about is
# only the name of the backend.
settings.register_profile(
    "antflow",
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("antflow")

BACKENDS = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]
if find_spec("uvloop"):
    BACKENDS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(number, title): belongs to the catalogue of faults")
    config.addinivalue_line("markers", "virtual_time: the test runs on a virtual clock")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run async tests on all backends, and those marked `virtual_time` on virtual clocks."""
    if "anyio_backend" in metafunc.fixturenames:
        virtual = metafunc.definition.get_closest_marker("virtual_time")
        metafunc.parametrize(
            "anyio_backend", virtual_backends() if virtual else BACKENDS, indirect=True
        )


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def _reset_stamina() -> Iterator[None]:
    """Restore the defaults of stamina after each test, and keep its warnings out of the output."""
    stamina.instrumentation.set_on_retry_hooks([])
    yield
    stamina.instrumentation.set_on_retry_hooks(None)
    stamina.set_testing(False)
    stamina.set_active(True)
