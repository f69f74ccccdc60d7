"""The option --when, which several verbs have: docs/reference.md tells what it means."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

# Those of shim.profile.edit, whose import no verb pays for that only parses.
VALUES = ("needed", "present", "always")


def add(parser: "argparse.ArgumentParser") -> None:
    """Add the option to the command line of a verb."""
    parser.add_argument(
        "--when",
        choices=VALUES,
        default="present",
        help="allow the calls that the kernel has (present, the default), only those that it lets "
        "profiles deny (needed), or all without a look at it (always)",
    )
