"""One relay for all tests, on which each founds an organisation of its own; and one for who wants to stop it."""

import asyncio

import pytest

from reader.connection import finish_all
from reader.relay_process import RelayProcess


@pytest.fixture(scope="session")
def relay(tmp_path_factory):
    with RelayProcess(tmp_path_factory.mktemp("relay")) as process:
        yield process


@pytest.fixture
def own_relay(tmp_path):
    with RelayProcess(tmp_path) as process:
        yield process


@pytest.fixture
def run():
    """Runs one conversation, bounded in time."""

    def bounded(conversation):
        async def limited():
            try:
                async with asyncio.timeout(60):
                    await conversation
            finally:
                await finish_all()

        asyncio.run(limited())

    return bounded
