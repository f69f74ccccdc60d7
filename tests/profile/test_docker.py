"""What a Docker profile says, read for every container on x86-64 at once."""

from typing import Any

import pytest

from shim.errors import ShimError
from shim.profile import docker
from support.profiles import ALLOW, DOCKER, ERRNO, ruled

DENY = {"action": ERRNO}


def limited(key: str, action: str = ALLOW, **limits: Any) -> dict[str, Any]:
    """Return a profile with one rule for uretprobe under ``limits``."""
    return ruled({"action": action, key: limits})


@pytest.mark.parametrize(
    ("profile", "verdict"),
    [
        (DOCKER, "denied-by-default"),
        (limited("includes", arches=["amd64"]), "allows"),
        (limited("includes", arches=["arm64", "amd64"]), "allows"),
        (limited("includes", arches=["arm64"]), "denied-by-default"),
        (limited("includes", arches=[]), "allows"),
        (limited("includes"), "allows"),
        (limited("excludes", arches=["amd64"]), "denied-by-default"),
        (limited("excludes", arches=["arm64"]), "allows"),
        (limited("includes", caps=["CAP_SYS_ADMIN"]), "conditional"),
        (limited("excludes", caps=["CAP_SYS_ADMIN"]), "conditional"),
        (limited("includes", minKernel="4.8"), "conditional"),
        (limited("excludes", minKernel="6.11"), "conditional"),
        (limited("includes", ERRNO, caps=["CAP_SYS_ADMIN"]), "explicit-deny"),
        (limited("excludes", ERRNO, caps=["CAP_SYS_ADMIN"]), "explicit-deny"),
        (limited("includes", ERRNO, minKernel="4.8"), "explicit-deny"),
        (limited("includes", ERRNO, arches=["arm64"]), "denied-by-default"),
        (limited("excludes", ERRNO, arches=["amd64"]), "denied-by-default"),
        (ruled({"action": ALLOW, "names": [], "name": "uretprobe"}), "allows"),
        (ruled({"action": ALLOW, "names": None, "name": "uretprobe"}), "allows"),
        (ruled({"action": ALLOW, "name": ""}), "allows"),
        (
            ruled({"action": ERRNO, "excludes": {"caps": ["CAP_SYS_ADMIN"]}}, {"action": ALLOW}),
            "explicit-deny",
        ),
        (ruled({"action": ALLOW, "includes": {"caps": ["CAP_BPF"]}}, DENY), "explicit-deny"),
        (ruled(archMap=[{"architecture": "SCMP_ARCH_AARCH64"}]), "no-x86-64"),
        (ruled(archMap=[{"architecture": "SCMP_ARCH_X86_64"}]), "denied-by-default"),
        (
            ruled(archMap=[{"architecture": "A", "subArchitectures": ["SCMP_ARCH_X86_64"]}]),
            "denied-by-default",
        ),
        (ruled(archMap=[], architectures=["SCMP_ARCH_X86_64"]), "denied-by-default"),
        (ruled(architectures=["SCMP_ARCH_X86"]), "no-x86-64"),
    ],
)
def test_verdict(profile: dict[str, Any], verdict: str) -> None:
    """An allow counts if it always holds, a denial if it can hold."""
    assert docker.evaluate(profile, "uretprobe")[0] == verdict


@pytest.mark.parametrize(
    ("profile", "subject"),
    [
        (ruled({"action": ALLOW, "name": "mkdir"}), "/syscalls/0/name"),
        (ruled({"action": ALLOW, "names": [], "name": 3}), "/syscalls/0/name"),
        (ruled({"action": ALLOW, "includes": []}), "/syscalls/0/includes"),
        (
            ruled(
                archMap=[{"architecture": "SCMP_ARCH_X86_64"}], architectures=["SCMP_ARCH_X86_64"]
            ),
            "/archMap",
        ),
    ],
)
def test_what_docker_refuses(profile: dict[str, Any], subject: str) -> None:
    """A profile that Docker would not take is an error here too."""
    with pytest.raises(ShimError) as error:
        docker.evaluate(profile, "uretprobe")
    assert error.value.subject == subject
