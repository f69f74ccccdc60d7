"""The node's image, built once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node import nodeimage
from node.apiserver import ApiServer, serving
from node.nodes import Node, node
from support import engines


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory that the build script has downloaded wheels to."""
    return nodeimage.wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="session")
def archive(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the image that a dockerd has built, as an archive."""
    file = tmp_path_factory.mktemp("image") / "image.tar"
    with engines.dockerd() as docker:
        nodeimage.build(docker, wheels)
        docker("save", "--output", str(file), nodeimage.NAME)
    return file


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    """Yield what stands in for an API server."""
    with serving(tmp_path) as server:
        yield server


@pytest.fixture
def bare(server: ApiServer, archive: Path) -> Iterator[Node]:
    """Yield a node on which nothing is installed."""
    with node(server, archive) as bare:
        yield bare
