"""Which daemon.json is meant, who reads it, and which flags stand beside it."""

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

from shim.engines.docker import config as daemonjson
from shim.engines.docker import dockerd, systemd_unit
from shim.engines.docker.choose import RUNTIME
from shim.engines.registration import Host
from shim.engines.registration.changes import content
from shim.errors import ShimError


class Installation(NamedTuple):
    """One daemon.json, the running daemons that read it, and their and the service's flags."""

    path: Path
    data: bytes | None
    config: daemonjson.Config
    daemons: list[dockerd.RunningDockerd]
    flags: list[dockerd.Flags]

    @property
    def runtimes(self) -> dict[str, Any]:
        """Return all runtimes but ours: of the file, and of the flag --add-runtime.

        Those that we stand in front of are as they were before.
        """
        found: dict[str, Any] = {}
        for flags in self.flags:
            for value in flags.values("--add-runtime"):
                name, _, path = value.partition("=")
                found[name] = {"path": path}
        found.update(self.config.runtimes)
        found.update(daemonjson.fronted(self.config))
        return {name: entry for name, entry in found.items() if name != RUNTIME}

    @property
    def default(self) -> str:
        """Return the name of the default runtime, empty where nobody has set one."""
        given = [value for flags in self.flags for value in flags.values("--default-runtime")]
        return self.config.default or "".join(given[:1])


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the file."""
    parser.add_argument(
        "--daemon-json",
        type=os.path.abspath,
        metavar="FILE",
        help="Docker's configuration file (default: that of the running dockerd, else of "
        f"docker.service, else {dockerd.DEFAULT})",
    )


def find(options: argparse.Namespace, host: Host) -> Installation:
    """Find daemon.json and read it. ShimError: there are several, or it is not to be understood."""
    service = systemd_unit.flags(host)
    path = Path(options.daemon_json) if options.daemon_json else None
    path = path or _configured(host, service)
    data = content(path)
    daemons = dockerd.running(path)
    flags = [daemon.flags for daemon in daemons]
    for each in service:
        if host.path((each.values("--config-file") or [dockerd.DEFAULT])[-1]) == path:
            flags.append(each)
    return Installation(path, data, daemonjson.read(data, str(path)), daemons, flags)


def _configured(host: Host, service: list[dockerd.Flags]) -> Path:
    default = host.path(dockerd.DEFAULT)
    if host.root == Path("/"):
        used = {each.config_file for each in dockerd.processes() if dockerd.own_view(each)}
        if len(used) > 1 and default not in used:
            listed = ", ".join(sorted(map(str, used)))
            raise ShimError(
                f"several dockerd run here, with {listed}", hint="name one by --daemon-json"
            )
        if used:
            return default if default in used else used.pop()
    named = [value for flags in service for value in flags.values("--config-file")]
    return host.path(named[-1]) if named else default
