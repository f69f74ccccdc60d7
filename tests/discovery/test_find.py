"""What is found on a host, who uses it, and what it says."""

import json
from pathlib import Path

import pytest

from shim.discovery.find import FoundProfile, survey
from shim.discovery.root import Root
from support.fleet import DENYING, KUBELET, OTHER, Host, options
from support.profiles import ALLOW, ERRNO, LAYOUTS, ruled
from support.resources import HEAD, embedded


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a host without anything."""
    return Host(tmp_path)


def one(host: Host, *paths: str) -> FoundProfile:
    """Return the one profile that is found."""
    [found] = host.survey(*paths).found
    return found


def text(**keys: object) -> str:
    """Return a profile with these keys."""
    return json.dumps({"defaultAction": ERRNO, "syscalls": [], **keys})


@pytest.mark.parametrize(
    ("path", "profile", "who", "line", "settings"),
    [
        (
            "etc/docker/daemon.json",
            "/srv/p.json",
            "docker daemon",
            2,
            '{\n "seccomp-profile": "/srv/p.json"}',
        ),
        (
            "home/u/.config/docker/daemon.json",
            "/srv/p.json",
            "docker daemon",
            1,
            '{"seccomp-profile": "/srv/p.json"}',
        ),
        (
            "etc/containers/containers.conf",
            "/srv/p.json",
            "podman",
            2,
            '[containers]\nseccomp_profile = "/srv/p.json"\n',
        ),
        (
            "etc/containers/containers.conf.d/9.conf",
            "/srv/p.json",
            "podman",
            2,
            '[containers]\nseccomp_profile="/srv/p.json"\n',
        ),
        (
            "home/u/.config/containers/containers.conf",
            "/srv/p.json",
            "podman",
            2,
            '[containers]\nseccomp_profile="/srv/p.json"\n',
        ),
        (
            "etc/crio/crio.conf",
            "/srv/p.json",
            "CRI-O",
            3,
            '[crio.runtime]\n\nseccomp_profile = "/srv/p.json"\n',
        ),
        (
            "etc/crio/crio.conf.d/10-x",
            "/srv/p.json",
            "CRI-O",
            2,
            '[crio.runtime]\nseccomp_profile = "/srv/p.json"\n',
        ),
        (
            "etc/crio/crio.conf.d/of/mine",
            "/srv/p.json",
            "CRI-O",
            2,
            '[crio.runtime]\nprivileged_seccomp_profile = "/srv/p.json"\n',
        ),
        (
            "etc/containerd/config.toml",
            f"/{KUBELET}/p.json",
            "containerd",
            3,
            "version = 2\n"
            '[plugins."io.containerd.grpc.v1.cri"]\n'
            'unset_seccomp_profile = "localhost/p.json"\n',
        ),
        (
            "opt/app/compose.yaml",
            "/opt/app/p.json",
            "service web",
            4,
            "services:\n  web:\n    security_opt:\n    - seccomp:./p.json\n",
        ),
        (
            "srv/x/docker-compose.yml",
            "/srv/p.json",
            "service db",
            2,
            "x: &o\n  security_opt: [seccomp=../p.json]\nservices:\n  db: *o\n",
        ),
        (
            "etc/kubernetes/manifests/a.yaml",
            f"/{KUBELET}/n/p.json",
            "Pod a",
            5,
            "kind: Pod\n"
            "metadata: {name: a}\n"
            "spec:\n"
            "  securityContext:\n"
            "    seccompProfile: {type: Localhost, localhostProfile: n/p.json}\n",
        ),
        (
            "etc/kubernetes/b.json",
            f"/{KUBELET}/p.json",
            "Pod",
            1,
            '{"kind": "Pod", "metadata": {"annotations": '
            '{"container.seccomp.security.alpha.kubernetes.io/c": "localhost/p.json"}}}',
        ),
        (
            "etc/systemd/system/x.service",
            "/srv/p.json",
            "unit",
            2,
            "[Service]\nExecStart=docker run --security-opt seccomp=/srv/p.json x\n",
        ),
        (
            "etc/containers/systemd/x.container",
            "/srv/p.json",
            "unit",
            2,
            "[Container]\nSeccompProfile=/srv/p.json\n",
        ),
    ],
    ids=range(15),
)
def test_in_use(host: Host, path: str, profile: str, settings: str, who: str, line: int) -> None:
    """A profile that an engine's settings name is found, with file and line of the naming."""
    host.write(profile.lstrip("/"))
    host.write(path, settings)
    [found] = host.survey(homes=True).found
    assert found.file == profile
    assert found.uses == ((who, f"/{path}:{line}"),)
    assert (found.format, found.state) == ("docker", "denies by default")


@pytest.mark.parametrize(
    "path",
    [f"{KUBELET}/a.json", f"{KUBELET}/x/y/z.json", "etc/docker/old.json", "etc/kubernetes/p.yaml"],
)
def test_lying_there(host: Host, path: str) -> None:
    """A profile that nobody names, but that lies where engines look, is found without a user."""
    host.write(path, embedded(DENYING.decode(), "|") if path.endswith("yaml") else DENYING)
    assert one(host).uses == ()


def test_podman_default(host: Host) -> None:
    """Of Podman's two default profiles the admin's is in use, the distribution's lies there."""
    for path in ("usr/share/containers/seccomp.json", "etc/containers/seccomp.json"):
        host.write(path)
    found = {each.file: each.uses for each in host.survey().found}
    assert list(map(bool, found.values())) == [True, False]
    assert list(found) == ["/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json"]


def test_named_by_the_user(host: Host) -> None:
    """Directories that the user names are looked through, files taken at their word."""
    host.write("data/k8s/profile.yaml", HEAD + "  defaultAction: SCMP_ACT_ERRNO\n")
    host.write(
        "data/k8s/deep/deploy.yaml",
        "kind: Pod\nspec: {seccompProfile: {localhostProfile: p.json}}\n",
    )
    host.write("data/readme.txt", "nothing about it")
    host.write(f"{KUBELET}/p.json")
    found = {each.file: each for each in host.survey("/data").found}
    assert sorted(found) == ["/data/k8s/profile.yaml", f"/{KUBELET}/p.json"]
    assert found["/data/k8s/profile.yaml"].profile == "SeccompProfile mine"
    assert found[f"/{KUBELET}/p.json"].uses == (("Pod", "/data/k8s/deep/deploy.yaml:2"),)
    assert [
        each.state for each in host.survey("/data/readme.txt").found if "data" in each.file
    ] == ["invalid"]


@pytest.mark.parametrize(
    ("profile", "state"),
    [
        (text(), "denies by default"),
        (text(defaultAction=ALLOW), "allows"),
        (json.dumps(ruled({"action": ERRNO})), "denies by default"),
        (text(syscalls=[{"names": ["uretprobe", "uprobe"], "action": ERRNO}]), "explicit deny"),
        (text(syscalls=[{"names": ["uretprobe", "uprobe"], "action": ALLOW}]), "allows"),
        (text(defaultAction="SCMP_ACT_NOTIFY"), "supervised"),
        (text(defaultAction="SCMP_ACT_TRACE"), "denies by default"),
        (text(architectures=["SCMP_ARCH_AARCH64"]), "denies by default"),
        ("{}", "filters nothing"),
        (text(defaultAction="SCMP_ACT_MAYBE"), "invalid"),
        ("{", "invalid"),
        ("\0binary", "invalid"),
        (text(x="y" * (3 << 20)), "invalid"),
    ],
    ids=range(13),
)
def test_state(host: Host, profile: str, state: str) -> None:
    """What a profile in use does to the kernel's calls is told in one word, and why."""
    host.write("srv/p.json", profile)
    host.write("etc/docker/daemon.json", '{"seccomp-profile": "/srv/p.json"}')
    found = one(host)
    assert found.state == state
    assert found.reason
    assert "/srv/p.json" not in found.reason


def test_missing_and_broken(host: Host) -> None:
    """A named profile that is not there is invalid; settings that cannot be read are noted."""
    host.write("etc/docker/daemon.json", '{"seccomp-profile": "/srv/gone.json"}')
    host.write("etc/crio/crio.conf", "[seccomp")
    host.write("opt/compose.yaml", "services: {a: {security_opt: [seccomp:x}")
    (host.root / "etc/docker/loop.json").symlink_to("loop.json")
    survey = host.survey()
    assert [(each.state, each.reason) for each in survey.found] == [
        ("invalid", "No such file or directory")
    ]
    assert sorted(path for path, _ in survey.notes) == [
        "/etc/crio/crio.conf",
        "/etc/docker/loop.json",
        "/opt/compose.yaml",
    ]


def test_not_profiles(host: Host) -> None:
    """Other JSON where profiles may lie is not called one, but for the kubelet's directory."""
    host.write("etc/docker/key.json", '{"kty": "EC"}')
    host.write("etc/docker/image.json", b"\0defaultAction")
    host.write("etc/kubernetes/pod.yaml", "kind: Pod\n")
    assert host.survey().found == []


def test_same_file_by_two_names(host: Host) -> None:
    """A file that links lead to is one profile, with the users of all its names."""
    host.write("srv/p.json")
    (host.root / "etc/docker").mkdir(parents=True)
    (host.root / "etc/docker/a.json").symlink_to("/srv/p.json")
    host.write("etc/docker/daemon.json", '{"seccomp-profile": "a.json"}')
    host.write("opt/compose.yml", "services: {w: {security_opt: [seccomp:/srv/p.json]}}")
    assert sorted(who for who, _ in one(host).uses) == ["docker daemon", "service w"]


def test_the_operators_copies_are_left_alone(host: Host) -> None:
    """What the security-profiles-operator writes is listed, and changed at its source only."""
    host.write("var/lib/security-profiles-operator/ns/p.json")
    (host.root / KUBELET).mkdir(parents=True)
    (host.root / KUBELET / "operator").symlink_to("/var/lib/security-profiles-operator")
    assert "SeccompProfile" in one(host).kept
    assert host.patch().results == []


def test_systemd_is_listed(host: Host) -> None:
    """Units with filters of their own are listed with the line and left alone."""
    host.write("usr/lib/systemd/system/a.service", "[Service]\nSystemCallFilter=@system-service\n")
    host.write("etc/systemd/system/b.service.d/x.conf", "[Service]\nSystemCallFilter=~@clock\n")
    host.write("etc/systemd/system/masked.service").unlink()
    (host.root / "etc/systemd/system/masked.service").symlink_to("/dev/null")
    survey = host.survey()
    assert [(each.format, each.state, each.uses[0][1]) for each in survey.found] == [
        ("systemd", "not judged", "/etc/systemd/system/b.service.d/x.conf:2"),
        ("systemd", "not judged", "/usr/lib/systemd/system/a.service:2"),
    ]
    assert survey.notes == []
    assert host.patch().results == []


def test_many_contents(host: Host) -> None:
    """Many different contents are judged by several processes, to the same end."""
    for index in range(100):
        host.write(f"{KUBELET}/{index:03}.json", LAYOUTS["tabs"](json.loads(text(x=index))))
    host.write(f"{KUBELET}/bad.json", "{")
    survey = host.survey()
    assert [each.state for each in survey.found] == ["denies by default"] * 100 + ["invalid"]
    assert len({file.before for file in survey.files}) == 100
    assert OTHER not in [file.verdict.after for file in survey.files]
    assert all(file.verdict.after for file in survey.files)


def test_a_path_is_that_path_and_nothing_else(host: Host) -> None:
    """What is named is looked at alone, and who uses it is told; --extra-path adds to all."""
    host.write("etc/docker/daemon.json", '{"seccomp-profile": "/etc/docker/mine.json"}')
    host.write("etc/docker/mine.json")
    host.write("etc/docker/other.json", "{")
    host.write(f"{KUBELET}/broken.json", "{")
    host.write("srv/one.json")
    host.write("home/mallory/p.json")
    named = host.survey("/etc/docker/mine.json")
    assert [each.file for each in named.found] == ["/etc/docker/mine.json"]
    assert named.found[0].uses == (("docker daemon", "/etc/docker/daemon.json:1"),)
    assert (named.notes, named.bad) == ([], frozenset())
    assert [each.file for each in host.survey("/srv").found] == ["/srv/one.json"]
    everything = {each.file for each in host.survey().found}
    assert everything >= {"/etc/docker/mine.json", f"/{KUBELET}/broken.json"}
    assert "/srv/one.json" not in everything
    extra = survey(Root(str(host.root)), None, options(), extra=["/srv"])
    assert {each.file for each in extra.found} == everything | {"/srv/one.json"}
    assert "home director" in str(host.survey("/home").notes)
