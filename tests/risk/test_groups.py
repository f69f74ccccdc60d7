"""Whose a process is, by its cgroup: each engine's own ways of naming, and nobody else's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.risk.groups import PLAIN, Place, paths, place

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
UID = "8f1c2d3e-1111-2222-3333-444455556666"
POD = f"kubepods-burstable-pod{UID.replace('-', '_')}.slice"
KUBE = f"/kubepods.slice/kubepods-burstable.slice/{POD}"
ROOTLESS = "/user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/system.slice/docker-{ID}.scope", Place("container", "docker", ID)),
        (f"/docker/{ID}", Place("container", "docker", ID)),
        (f"/docker/{ID}/init", Place("container", "docker", ID)),
        (f"/parent/{ID}", Place("container", "", ID)),
        (f"/machine.slice/libpod-{ID}.scope/container", Place("container", "podman", ID)),
        (f"/libpod_parent/libpod-{ID}", Place("container", "podman", ID)),
        (
            f"{ROOTLESS}/user.slice/libpod-{ID}.scope",
            Place("container", "podman", ID, user=1000),
        ),
        (
            f"{ROOTLESS}/app.slice/docker.service/docker/{ID}",
            Place("container", "docker", ID, user=1000),
        ),
        (f"{KUBE}/cri-containerd-{ID}.scope", Place("container", "containerd", ID, UID)),
        (f"{KUBE}/crio-{ID}.scope", Place("container", "cri-o", ID, UID)),
        (f"{KUBE}/docker-{ID}.scope", Place("container", "docker", ID, UID)),
        (f"/kubepods/besteffort/pod{UID}/{ID}", Place("container", "", ID, UID)),
        (f"/kubepods/pod{UID}/crio-{ID}", Place("container", "cri-o", ID, UID)),
        (f"/system.slice/nerdctl-{ID}.scope", Place("container", "containerd", ID)),
        ("/default/web", Place("container", "containerd", "web")),
        ("/system.slice/runc-box.scope", Place("container", "runc", "box")),
        ("/user.slice/crun-box.scope", Place("container", "crun", "box")),
        ("/system.slice/sshd.service", Place("unit", "systemd", "sshd.service")),
        ("/system.slice/_memory.service", Place("unit", "systemd", "memory.service")),
        ("/system.slice/system-x.slice/x@1.service", Place("unit", "systemd", "x@1.service")),
        (
            f"{ROOTLESS}/app.slice/app-firefox.scope",
            Place("unit", "systemd", "app-firefox.scope", user=1000),
        ),
        ("/machine.slice/systemd-nspawn@c.service/payload/system.slice/x.service",
         Place("unit", "systemd", "systemd-nspawn@c.service")),
        ("/lxc.payload.box/system.slice/ssh.service", PLAIN),
        ("/lxc/box/user.slice/user-1000.slice/user@1000.service/x.service",
         PLAIN._replace(user=1000)),
        (f"/system.slice/libpod-conmon-{ID}.scope", PLAIN),
        (f"/machine.slice/crio-conmon-{ID}.scope", PLAIN),
        ("/user.slice/user-0.slice/session-3.scope", PLAIN),
        ("/init.scope", PLAIN),
        ("/", PLAIN),
        ("", PLAIN),
    ],
)  # fmt: skip
def test_each_engines_names_are_known(path: str, expected: Place) -> None:
    """With the driver systemd and with cgroupfs, rootful and rootless, alone and in pods."""
    assert place(f"0::{path}\n") == expected
    assert place(f"12:pids:{path}\n1:name=systemd:{path}\n0::/\n") == expected


def test_the_outermost_container_counts() -> None:
    """What a container calls its own cgroups makes it no other container."""
    inside = f"/docker/{ID}/docker/{OTHER}"
    assert place(f"0::{inside}").ident == ID
    assert place(f"0::/system.slice/docker-{ID}.scope/libpod-{OTHER}.scope").ident == ID


def test_a_users_container_is_that_users() -> None:
    """A user who names a cgroup like root's container of another engine does not become it."""
    fake = place(f"0::{ROOTLESS}/app.slice/docker-{ID}.scope")
    assert fake == Place("container", "docker", ID, user=1000)
    assert fake != place(f"0::/system.slice/docker-{ID}.scope")


@pytest.mark.parametrize(
    "end", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r"]
)
def test_only_a_line_feed_ends_a_line(end: str) -> None:
    """A cgroup's name may hold all else that Python takes for the end of a line."""
    assert place(f"1:pids:/a{end}0::docker-{ID}.scope\n0::/\n").kind != "container"
    assert place(f"1:pids:/a{end}0::/{ID}x\n0::/\n") == PLAIN
    assert place(f"0::{ROOTLESS}/a{end}0::/docker/{ID}\n").user == 1000


@pytest.mark.parametrize(
    "below",
    ["user@1000.service/web", f"user@1000.service/docker-{ID}.scope", "session-3.scope",
     "session-3.scope/web", "user@1000.service", "", "user-0.slice/web"],
)  # fmt: skip
@pytest.mark.parametrize("nested", [False, True])
def test_nothing_below_a_users_slice_is_roots(below: str, nested: bool) -> None:
    """Whatever he calls it, with a pid namespace or not, in one hierarchy or in all."""
    path = f"/user.slice/user-1000.slice/{below}"
    assert place(f"0::{path}\n", nested=nested).user == 1000
    assert place(f"0::/docker/{ID}\n1:name=systemd:{path}\n", nested=nested).user == 1000


def test_no_user_is_made_in_a_container() -> None:
    """A container that calls a cgroup like a user's slice remains root's."""
    inside = f"0::/system.slice/docker-{ID}.scope/user.slice/user-1000.slice/x.service"
    assert place(inside) == Place("container", "docker", ID)


def test_a_login_is_no_container() -> None:
    """A pid namespace in a session does not make one of it."""
    session = "0::/user.slice/user-1000.slice/session-3.scope\n"
    assert place(session, nested=True) == Place("process", user=1000)


def test_a_name_below_another_is_not_the_name_alone() -> None:
    """Root in a container without an engine makes cgroups below its own, no other container's."""
    assert place("0::/box/web", nested=True) != place("0::/web", nested=True)


def test_a_runtime_without_an_engine_is_known_by_the_pid_namespace() -> None:
    """The runtimes alone make /NAME; that is a container's only with a pid namespace of its own."""
    text = "3:pids:/box\n0::/\n"
    assert place(text, nested=True) == Place("container", "", "box")
    assert place(text) == PLAIN
    assert place("0::/\n", nested=True) == PLAIN


def test_version_two_is_asked_first() -> None:
    """On a hybrid host each path is looked at once."""
    assert paths("3:pids:/a\n1:name=systemd:/b\n0::/c\n2:cpu:/a\n") == ["/c", "/b", "/a"]


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    """A cgroup may have any name."""
    assert place(text).kind in ("container", "unit", "process")
