"""Clients of the Docker SDK for Python whose containers are adjusted as they are created.

Everything that creates a container in the SDK ends in one method of its low-level client,
``create_container_from_config``; that method alone is replaced, so all the rest is the SDK's own.
"""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from docker import APIClient, DockerClient
from docker.errors import DockerException
from docker.models.containers import Container
from docker.transport import UnixHTTPAdapter

from shim import log
from shim.config import load
from shim.engines.docker.choose import Choice, Request, checked, choose
from shim.engines.docker.daemon_facts import gather, wanting
from shim.errors import ShimError

if TYPE_CHECKING:
    from shim.profile.edit import When

_KEPT = 1000
_T = TypeVar("_T")


class Refused(ShimError, DockerException):  # noqa: N818 - says what happened, as StopIteration
    """No container was made: it could not be adjusted, and the admin said ``on_error: deny``."""


class Decision(NamedTuple):
    """What was decided for one container: ``container`` is its id, ``choice`` what and why."""

    container: str
    choice: Choice

    @property
    def adjusted(self) -> bool:
        """Tell whether the container is another than the one asked for."""
        return self.choice.action != "nothing"


class API(APIClient):
    """The SDK's low-level client; its answer to a creation tells of an adjustment in Warnings."""

    decisions: "deque[Decision]"
    settings: str
    when: "When"

    def create_container_from_config(
        self, config: Mapping[str, Any], name: str | None = None, *more: Any, **named: Any
    ) -> dict[str, Any]:
        """Create a container as the SDK does, adjusted. Refused: see there.

        What follows the name differs by the SDK's release: ``platform`` came with 6.0.
        """
        settings, doubt = load(self.settings)
        facts = {
            "log": settings["log"],
            "container": name or "",
            "image": str(config.get("Image", "")),
        }
        choice, level = self._choice(config, settings)
        choice = _logged(choice, level, {**facts, "doubt": doubt} if doubt else facts)
        if choice.uncovered and settings["on_error"] == "deny":
            raise Refused(f"refused (on_error: deny): {choice.reason}", subject=name or "container")
        create: Callable[..., dict[str, Any]] = super().create_container_from_config
        try:
            answer = create(with_choice(config, choice), name, *more, **named)
        except Exception as error:
            if choice.action != "nothing":
                _follow_up("not-created", {**facts, **choice.logged(), "reason": str(error)})
            raise
        self.decisions.append(Decision(answer["Id"], choice))
        if choice.action != "nothing" or choice.uncovered:
            warnings = answer.get("Warnings") or []
            answer["Warnings"] = [*warnings, f"seccomp-shim: {choice.reason}"]
        if choice.action != "nothing":
            # What was asked for was logged before; only now has the container an id. The runtime
            # adjusts it when it starts, and logs that itself.
            event = "created" if choice.action == "runtime" else "adjusted"
            _follow_up(event, {**facts, "container": answer["Id"], **choice.logged()})
        return answer

    def _choice(self, asked: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Choice, str]:
        """Decide, and give the decision's level in the log."""
        try:
            host = asked.get("HostConfig") or {}
            request = Request(
                security_opt=host.get("SecurityOpt") or (),
                privileged=bool(host.get("Privileged")),
                runtime=host.get("Runtime") or "",
            )
            # Asked anew each time, some ten milliseconds: a reload can change a daemon's runtimes.
            number = settings["test_syscall"]
            daemon = gather(self.info(), self._address(), number, apart=True)
            return choose(wanting(daemon, settings), request, self.when), "info"
        except Exception as error:  # a fault of ours must not be what stops a container
            reason = f"cannot decide: {str(error) or error!r}"
            return Choice("nothing", "", reason, uncovered=True), "error"

    def _address(self) -> str:
        adapter = self.get_adapter(self.base_url)
        if isinstance(adapter, UnixHTTPAdapter):
            return f"unix://{adapter.socket_path}"
        return self.base_url


class Client(DockerClient):
    """The SDK's client, with what was decided for the latest containers that it created."""

    api: API

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What was decided for the latest thousand containers, oldest first."""
        return tuple(self.api.decisions)

    @property
    def adjustments(self) -> tuple[Decision, ...]:
        """Those of them that were adjusted."""
        return tuple(each for each in self.decisions if each.adjusted)

    def decision(self, container: Container | str) -> Decision | None:
        """Return what was decided for a container (or its full id), if this client created it."""
        ident = container if isinstance(container, str) else container.id
        return next((each for each in self.decisions if each.container == ident), None)


def client_of(client: DockerClient, when: "When", settings: str) -> Client:
    """Return a twin of ``client`` that adjusts, of a class that is also that of ``client``."""
    api = _twin(client.api, API)
    api.decisions, api.when, api.settings = deque(maxlen=_KEPT), checked(when), settings
    twin = _twin(client, Client)
    twin.api = api
    return twin


def with_choice(asked: Mapping[str, Any], choice: Choice) -> Mapping[str, Any]:
    """Return a container's configuration (POST /containers/create) with ``choice`` carried out."""
    if choice.action == "nothing":
        return asked
    host = dict(asked.get("HostConfig") or {})
    if choice.action == "runtime":
        host["Runtime"] = choice.value
    else:
        options = [o for o in host.get("SecurityOpt") or () if not _is_seccomp(o)]
        host["SecurityOpt"] = [*options, f"seccomp={choice.value}"]
    return {**asked, "HostConfig": host}


def _is_seccomp(option: str) -> bool:
    return option.startswith(("seccomp=", "seccomp:"))


def _logged(choice: Choice, level: str, facts: Mapping[str, str]) -> Choice:
    """Log what is about to be done; where that fails, give the choice to do nothing."""
    fields: dict[str, Any] = {**facts, "reason": choice.reason}
    event = "failed" if level == "error" else "left-alone"
    if choice.action != "nothing":
        event = "requested"
        fields |= choice.logged()
    try:
        log.record(event, level=level, **fields)
    except (ShimError, OSError) as error:
        if choice.action != "nothing":
            return Choice("nothing", "", str(error), choice.calls, uncovered=True)
    return choice


def _follow_up(event: str, fields: Mapping[str, Any]) -> None:
    """Log what has become of what was asked for; it has happened, whether that can be or not."""
    with suppress(ShimError, OSError):
        log.record(event, **fields)


def _twin(original: object, kind: type[_T]) -> _T:
    """Return an object of ``kind`` and of the original's class that shares all that it holds."""
    theirs: type = type(original)
    both = theirs if issubclass(theirs, kind) else kind
    if not issubclass(both, theirs):
        both = type(kind.__name__, (kind, theirs), {})
    twin: _T = both.__new__(both)
    twin.__dict__.update(original.__dict__)
    return twin
