"""Whether engines answer and containers start: looked at before profiles change, and after.

A look is JSON: ``{"engines": [{"engine", "answers", "said"}], "containers": [{"how", "profile",
"started", "reason", "calls": {CALL: {"verdict", "expected"}}}], "not_tried"}``. Engines are those
that are there; ``said`` is the version, if one is told, or what was wrong. ``how`` is the path of a
runtime, docker or podman; ``profile`` is the file, empty for the engine's own default. A call's
verdict is that of the filter that the container's process really had, ``ALLOW``, ``ERRNO(1)``;
``expected`` is empty where nothing is. ``not_tried`` counts profiles without a container.

Each container is thrown away at once, and nothing of it stays on the host.
"""
