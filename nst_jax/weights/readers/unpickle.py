"""Pickles read by an interpreter of their opcodes in place of the standard library's.

It imports nothing and calls nothing but the functions its caller hands in. It takes no more memory than the
file is long. What a hostile or damaged pickle asks for beyond that ends in an exception.
"""

import pickletools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np

MAX_OPCODES = 10**6  # opcodes; a network has some thousand
MAX_LENGTH = 16  # arguments, dimensions: what is no longer does not count

Known = Mapping[str, Callable[..., Any]]  # "module name" of a global: the function that stands for it


def read_pickle(stream: Any, known: Known, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Return what the pickle at the position of a binary stream describes.

    Args:
        stream: Open for reading.
        known: What each global stands for.
        persistent: Maps a persistent id to its value.

    Raises:
        ValueError: A global is not known, or the pickle is damaged. Then it may also be TypeError,
            LookupError, AttributeError, OverflowError or MemoryError.
    """
    machine = _Machine(known, persistent)
    for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
        if count > MAX_OPCODES:
            raise ValueError(f"pickle: more than {MAX_OPCODES} opcodes")
        machine.position = position or 0
        machine.step(opcode.name, argument)
    return machine.pop(1)[0]


class Global(NamedTuple):
    """Stands for a class or function that a pickle names."""

    make: Callable[..., Any]


class Built:
    """A value that a pickle makes first and completes afterwards."""

    def build(self, state: Any) -> None:
        """Take the state that was pickled; by default nothing of it is needed."""


class Dictionary(dict[Any, Any], Built):
    """Stands for collections.OrderedDict; its own attributes (torch's version numbers) are dropped."""

    def __init__(self, items: Iterable[Sequence[Any]] = ()):
        super().__init__()
        for key, value in items:
            _set_items(self, [key, value])


class DType(Built):
    """Stands for numpy.dtype: plain numbers only."""

    def __init__(self, name: str, *_: Any):
        if not re.fullmatch(r"[fiu][1248]|b1", name):
            raise ValueError(f"numbers of type {name[:20]!r} refused")
        self.dtype: np.dtype[Any] = np.dtype(name)

    def build(self, state: Any) -> None:
        """Take the byte order from the state (version, order, ...)."""
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class Array(Built):
    """Stands for numpy.ndarray: .array is filled by build."""

    def __init__(self, *_: Any):
        self.array: np.ndarray = np.zeros(0)

    def build(self, state: Any) -> None:
        """Take the state (version, shape, type, whether by columns, bytes)."""
        _, shape, kind, by_columns, data = state
        raw = data.encode("latin-1") if isinstance(data, str) else data  # Python 2 has no other bytes
        self.array = np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if by_columns else "C")


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.build((1, shape, kind, order == "F", data))
    return array


ARRAYS: Known = {  # how NumPy 1 and 2 pickle arrays, in protocols 2 to 5
    "numpy ndarray": Array,
    "numpy dtype": DType,
    "numpy.core.multiarray _reconstruct": Array,
    "numpy._core.multiarray _reconstruct": Array,
    "numpy.core.numeric _frombuffer": _from_buffer,
    "numpy._core.numeric _frombuffer": _from_buffer,
    "_codecs encode": lambda text, _encoding: text.encode("latin-1"),
}


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERAL = re.compile(  # opcodes whose argument is the value: numbers, text and bytes of every length
    "(BIN)?(INT|FLOAT)|BININT[12]|LONG[14]?|(SHORT_)?(BIN)?(STRING|UNICODE|BYTES)|BIN(UNICODE|BYTES)8|BYTEARRAY8"
)


class _Machine:
    """The stack machine that a pickle is a program for."""

    def __init__(self, known: Known, persistent: Callable[[Any], Any] | None):
        self.known = known
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.position = 0  # in the stream
        self.taken = 0  # elements and bytes that calls were given

    def step(self, opcode: str, argument: Any) -> None:
        """Do what one opcode says; pickletools documents each."""
        push = self.stack.append
        if _LITERAL.fullmatch(opcode):
            push(argument)
        elif opcode in _CONSTANTS:
            push(_CONSTANTS[opcode])
        else:
            match opcode:
                case "PROTO" | "FRAME" | "STOP":
                    pass
                case "MARK":
                    self.marks.append(len(self.stack))
                case "EMPTY_LIST":
                    push([])
                case "EMPTY_DICT":
                    push({})
                case "LIST":
                    push(self.pop_marked())
                case "DICT":
                    items = self.pop_marked()
                    push(_set_items({}, items))
                case "TUPLE":
                    push(tuple(self.pop_marked()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    push(tuple(self.pop(int(opcode[-1]))))
                case "APPEND" | "APPENDS":
                    items = self.pop(1) if opcode == "APPEND" else self.pop_marked()
                    self.top(list).extend(items)
                case "SETITEM" | "SETITEMS":
                    items = self.pop(2) if opcode == "SETITEM" else self.pop_marked()
                    _set_items(self.top(dict), items)
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    self.memo[argument] = self.top(object)
                case "MEMOIZE":
                    self.memo[len(self.memo)] = self.top(object)
                case "GET" | "BINGET" | "LONG_BINGET":
                    push(self.memo[argument])
                case "GLOBAL":
                    push(self.find(argument))
                case "STACK_GLOBAL":
                    push(self.find(" ".join(self.pop(2))))
                case "REDUCE" | "NEWOBJ":
                    callee, arguments = self.pop(2)
                    self.take(arguments)
                    push(_call(callee, arguments))
                case "BUILD":
                    (state,) = self.pop(1)
                    self.take(state)
                    self.top(Built).build(state)
                case "BINPERSID" if self.persistent:
                    (identity,) = self.pop(1)
                    self.take(identity)
                    push(self.persistent(identity))
                case _:
                    raise ValueError(f"pickle opcode {opcode} refused")

    def take(self, arguments: Any) -> None:
        """Count what a call is given. Raises ValueError where the same is given again and again.

        A call may go through all of it and copy it, and a few bytes of pickle name it once more.
        """
        given = (arguments, *arguments[:MAX_LENGTH]) if isinstance(arguments, tuple | list) else (arguments,)
        self.taken += sum(
            len(value) for value in given if isinstance(value, Sized) and len(value) > MAX_LENGTH
        )
        if self.taken > self.position:
            raise ValueError("pickle: the same values over and over")

    def top(self, kind: type) -> Any:
        """Return the value on top, which must be of a kind."""
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"pickle: no {kind.__name__} where one was expected")
        return self.stack[-1]

    def pop(self, count: int) -> list[Any]:
        """Take count values off the stack, the top one last."""
        if len(self.stack) < count:
            raise IndexError("pickle: stack empty")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def pop_marked(self) -> list[Any]:
        """Take the values above the last mark off the stack."""
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def find(self, name: str) -> Global:
        """Return the stand-in of a global, given as "module name"."""
        if name not in self.known:
            raise ValueError(f"it asks for the code {name[:80].replace(' ', '.')}, which is refused")
        return Global(self.known[name])


def _call(callee: Any, arguments: Any) -> Any:
    if not isinstance(callee, Global) or not isinstance(arguments, tuple):
        raise TypeError("pickle: a call of what is no function")
    return callee.make(*arguments)


def _set_items(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    """Set items, a flat list of keys and values."""
    for key, value in zip(items[::2], items[1::2], strict=True):
        # A tuple of tuples of tuples could take for ever to hash, and large numbers can have all one hash.
        if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < 2**60):
            raise TypeError("pickle: a key that is neither text nor number")
        target[key] = value
    return target
