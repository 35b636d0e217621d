"""The one hierarchy of errors that gradlab raises on purpose.

Each message names the argument (or file), its value, what was expected and what to try.
`ShapeError`, `DTypeError` and `ValueRangeError` are also the built-in errors that Python users expect.
"""


class GradlabError(Exception):
    """Base of every error that gradlab raises on purpose."""


class ShapeError(GradlabError, ValueError):
    """An array has the wrong number of axes or the wrong sizes."""


class DTypeError(GradlabError, TypeError):
    """A value has a type or a dtype that cannot be used."""


class ValueRangeError(GradlabError, ValueError):
    """A value has the right type but lies outside what is meaningful."""


class FormatError(GradlabError):
    """A file does not hold what it should."""


class UnsafeFileError(FormatError):
    """A file holds something that would have to be executed or unpickled; it never is."""


class ResourceRefused(GradlabError):
    """The work would need more memory, disk or permission than there is; nothing was started."""


class NumericalError(GradlabError, ArithmeticError):
    """A computation left the range of floating-point numbers, or an oracle disagrees with itself."""


class GradientMismatch(GradlabError, AssertionError):
    """A hand-written derivative differs from the exact one."""
