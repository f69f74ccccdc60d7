"""What we use of ``ctypes``, from the module that it has it from itself.

``ctypes`` costs a container that is adjusted three times as much to import (its own classes, and
``os``; see ``shim.lightos``).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import (
        CDLL,
        Array,
        addressof,
        c_char,
        c_int,
        c_long,
        c_uint,
        c_ulong,
        c_ulonglong,
        create_string_buffer,
        get_errno,
        set_errno,
    )
else:
    import _ctypes
    from _ctypes import Array, addressof, get_errno, set_errno

    def _simple(code):
        class Simple(_ctypes._SimpleCData):
            _type_ = code

        return Simple

    c_char, c_int, c_uint, c_long, c_ulong, c_ulonglong = map(_simple, "ciIlLQ")

    class _Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = c_int

    class CDLL:
        """A library whose functions leave errno for ``get_errno``."""

        def __init__(self, name, *, use_errno):  # noqa: ARG002 - they always do
            self._handle = _ctypes.dlopen(name, 0)

        def __getattr__(self, name):
            function = _Function((name, self))
            setattr(self, name, function)
            return function

    def create_string_buffer(init, size=None):
        """Return a buffer of ``size`` bytes that begins with ``init``, or of as many as it says."""
        if isinstance(init, int):
            return (c_char * init)()
        buffer = (c_char * (len(init) + 1 if size is None else size))()
        buffer.value = init
        return buffer


__all__ = [
    "CDLL",
    "Array",
    "addressof",
    "c_char",
    "c_int",
    "c_long",
    "c_uint",
    "c_ulong",
    "c_ulonglong",
    "create_string_buffer",
    "get_errno",
    "set_errno",
]
