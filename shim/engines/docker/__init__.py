"""Docker's ways in: the SDK's clients, the command line and compose, container by container.

``from_env`` and ``shim_client`` give a client of the Docker SDK for Python; docs/sdk.md tells how.
Importing this package costs nothing: pass-through commands import it, too.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import docker

    from shim.engines.docker.sdk import Client
    from shim.profile.edit import When


def from_env(*, when: "When" = "needed", settings: str = "", **options: "Any") -> "Client":
    """Return ``docker.from_env(**options)`` as ``shim_client`` gives it."""
    from docker import DockerClient

    return shim_client(DockerClient.from_env(**options), when=when, settings=settings)


def shim_client(
    client: "docker.DockerClient", *, when: "When" = "needed", settings: str = ""
) -> "Client":
    """Return a twin of ``client`` whose containers are adjusted; ``client`` itself stays as it is.

    ``when`` is ``needed``, ``present`` or ``always``, as docs/reference.md has it. ``settings``
    names a file of settings other than the admin's. The two share connections and credentials:
    closing one closes the other. ShimError: ``when`` is another word.
    """
    from shim import config
    from shim.engines.docker import sdk

    return sdk.client_of(client, when, settings or config.PATH)
