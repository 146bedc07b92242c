"""Untrusted pickles: an interpreter of its own that builds data and nothing else.

Python's unpickler imports what a file names and calls it. This one knows a fixed list of names, each standing for a
function here; any other name is refused, or stands for an object that only keeps what it was given. The opcodes are
decoded by the standard library's `pickletools`, which executes nothing.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import _check

if TYPE_CHECKING:
    from typing import BinaryIO

Builder = Callable[..., Any]


def shown(value: Any) -> str:
    """Return a value of a pickle for an error message: a number, short text or a shape as it is, else its type.

    Containers are not printed: a tuple of tuples that share their parts has few bytes, and a text without end.
    """
    if isinstance(value, tuple) and all(type(n) is int for n in value):
        return _check.shown(value)
    if isinstance(value, (tuple, list, dict)):
        return type(value).__name__
    return f"<inert {value.name}>" if isinstance(value, Inert) else _check.shown(value)


def plain_key(key: Any) -> bool:
    """Return True for a key of a dict that is hashed and printed in no time.

    Hashing a tuple of tuples of tuples ... that share their parts takes exponential time; and the hash of a long tuple
    or number is made anew at each use, which takes three bytes of a file.
    """
    parts = key if isinstance(key, tuple) else (key,)
    return isinstance(key, str) or (len(parts) <= 16 and all(map(_short, parts)))


def _short(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= 64
    return value is None or isinstance(value, float) or (isinstance(value, (str, bytes)) and len(value) <= 256)


FREE = 1 << 20  # bytes that the calls of a small pickle may copy


class Mark:
    """The stack's marker."""


class Inert:
    """Stands for an object of an unknown class: its name, and the arguments that the file has for it."""

    __slots__ = ("args", "items", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name, self.args, self.state = name, args, None
        self.items: dict[Any, Any] = {}


class Name:
    """A name that a pickle imports: the builder that replaces it here, None for an inert one."""

    __slots__ = ("build", "name")

    def __init__(self, name: str, build: Builder | None) -> None:
        self.name, self.build = name, build

    def __call__(self, args: tuple[Any, ...]) -> Any:
        return Inert(self.name, args) if self.build is None else self.build(*args)


class State:
    """An object under construction that takes its state afterwards, by BUILD."""

    def set_state(self, state: Any) -> None:
        raise NotImplementedError


class Machine:
    """Reads one pickle after the other from a stream.

    Parameters
    ----------
    stream : binary file
    names : mapping
        From "module.name" to the builder that stands for it.
    persistent : callable, optional
        Returns the object of a persistent id.
    inert : callable
        True if a name that is not in `names` becomes an inert object instead of an error.
    """

    def __init__(
        self,
        stream: BinaryIO,
        names: Mapping[str, Any],
        persistent: Builder | None = None,
        inert: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._stream, self._names, self._persistent, self._inert = stream, names, persistent, inert

    def load(self) -> Any:
        """Return the next object, or raise ValueError."""
        start = self._stream.tell()
        self._left = FREE + 4 * (self._stream.seek(0, io.SEEK_END) - start)
        self._stream.seek(start)
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        for opcode, argument, _ in pickletools.genops(self._stream):
            name = opcode.name
            if name == "STOP":
                return self._pop()
            if name in _CONSTANTS:
                self._stack.append(argument)
            elif name in _EMPTY:
                self._stack.append(_EMPTY[name]())
            else:
                action = _ACTIONS.get(name)
                if action is None:
                    raise ValueError(f"the pickle has the opcode {name}, which is not read here")
                action(self, argument)
        raise ValueError("the pickle has no end")

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is Mark:
            raise ValueError("the pickle takes more from its stack than is there")
        return self._stack.pop()

    def _top(self, kind: Any) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise ValueError("the pickle adds to something that is no container")
        return self._stack[-1]

    def _items(self) -> list[Any]:
        """Take all items above the last mark."""
        for k in range(len(self._stack) - 1, -1, -1):
            if self._stack[k] is Mark:
                items = self._stack[k + 1 :]
                del self._stack[k:]
                return items
        raise ValueError("the pickle has no mark where one is needed")

    def _spend(self, values: tuple[Any, ...]) -> None:
        """Count what may be copied of some values: of a real file each part is copied once or twice.

        A hostile one has a long value once, and hands it to a builder again and again, which takes five bytes each.
        """
        self._left -= 8 * len(values)
        for value in values:
            if isinstance(value, (str, bytes, bytearray)):
                self._left -= len(value)
            elif isinstance(value, (list, tuple, dict)):
                self._left -= 8 * len(value)
        if self._left < 0:
            raise ValueError("the pickle copies its parts to much more than it holds")

    def _name(self, name: str) -> Any:
        if name in self._names:
            value = self._names[name]
            return Name(name, value) if callable(value) else value
        if self._inert(name):
            return Name(name, None)
        raise ValueError(
            f"the pickle wants {name}, which is not on the list of harmless names, and nothing else is ever imported; "
            f'unknown="skip" reads it without this object'
        )

    def _global(self, argument: str) -> None:
        self._stack.append(self._name(argument.replace(" ", ".", 1)))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("the pickle imports something that is no name")
        self._spend((name, module))
        self._stack.append(self._name(f"{module}.{name}"))

    def _call(self, function: Any, args: Any) -> None:
        if isinstance(function, Inert):
            self._stack.append(Inert(function.name, ()))
            return
        if not isinstance(function, Name):
            raise ValueError(f"the pickle calls {shown(function)}, which is no function")
        if not isinstance(args, tuple):
            raise ValueError(f"the pickle calls {function.name} with {shown(args)}, which is no tuple")
        if function.build is not None:
            self._spend(args)
        try:
            self._stack.append(function(args))
        except (TypeError, AttributeError) as error:
            raise ValueError(f"the pickle calls {function.name} with arguments that it does not take") from error

    def _reduce(self, _: Any) -> None:
        args, function = self._pop(), self._pop()
        self._call(function, args)

    def _newobj_ex(self, _: Any) -> None:
        keywords, args, function = self._pop(), self._pop(), self._pop()
        if keywords:
            raise ValueError("the pickle makes an object with keywords")
        self._call(function, args)

    def _build(self, _: Any) -> None:
        state = self._pop()
        target = self._top(object)
        if isinstance(target, Inert):
            target.state = state
        elif isinstance(target, State):
            self._spend(state if isinstance(state, tuple) else ())
            target.set_state(state)
        elif not isinstance(target, dict):  # of an OrderedDict the attributes are of no interest
            raise ValueError(f"the pickle sets the state of a {type(target).__name__}")

    def _persid(self, argument: Any) -> None:
        if self._persistent is None:
            raise ValueError("the pickle has a persistent id, which only files of PyTorch may")
        self._stack.append(self._persistent(argument))

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError(f"the pickle reads number {index} of its memory, which it never wrote")
        self._stack.append(self._memo[index])

    def _put(self, index: int) -> None:
        self._memo[index] = self._top(object)

    def _set(self, pairs: list[Any]) -> None:
        target = self._top((dict, Inert))
        target = target.items if isinstance(target, Inert) else target
        if len(pairs) % 2:
            raise ValueError("the pickle sets a key without a value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[key if plain_key(key) else f"<{type(key).__name__} {len(target)}>"] = value

    def _append(self, values: list[Any]) -> None:
        target = self._top((list, Inert))
        if isinstance(target, list):
            target.extend(values)

    def _tuple(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(values)))

    def _dict(self, _: Any) -> None:
        pairs = self._items()
        self._stack.append({})
        self._set(pairs)

    def _object(self, _: Any) -> None:
        function, *args = self._items() or [None]
        self._call(function, tuple(args))

    def _instance(self, argument: str) -> None:
        args = tuple(self._items())
        self._call(self._name(argument.replace(" ", ".", 1)), args)

    def _setitem(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])


_CONSTANTS = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "NONE",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
    ]
)
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # sets hold nothing that is read from here; a list needs no hashes
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "MARK": lambda: Mark,
}
_ACTIONS: dict[str, Callable[[Machine, Any], Any]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._reduce,
    "NEWOBJ_EX": Machine._newobj_ex,
    "OBJ": Machine._object,
    "INST": Machine._instance,
    "BUILD": Machine._build,
    "PERSID": Machine._persid,
    "BINPERSID": lambda m, a: m._persid(m._pop()),
    "GET": Machine._get,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "PUT": Machine._put,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": lambda m, a: m._put(len(m._memo)),
    "LIST": lambda m, a: m._stack.append(m._items()),
    "APPEND": lambda m, a: m._append([m._pop()]),
    "APPENDS": lambda m, a: m._append(m._items()),
    "ADDITEMS": lambda m, a: m._append(m._items()),
    "FROZENSET": lambda m, a: m._stack.append(m._items()),
    "TUPLE": lambda m, a: m._stack.append(tuple(m._items())),
    "TUPLE1": lambda m, a: m._tuple(1),
    "TUPLE2": lambda m, a: m._tuple(2),
    "TUPLE3": lambda m, a: m._tuple(3),
    "DICT": Machine._dict,
    "SETITEM": Machine._setitem,
    "SETITEMS": lambda m, a: m._set(m._items()),
    "POP": lambda m, a: m._stack.pop() if m._stack else m._pop(),
    "POP_MARK": lambda m, a: m._items(),
    "DUP": lambda m, a: m._stack.append(m._top(object)),
}


_LEAVES = (str, int, float, bytes, type(None))
NAMES = 1 << 24  # characters that the names of a small file's arrays may have in all


def flatten(value: Any, size: int) -> dict[str, Any]:
    """Return the arrays of nested dicts, lists and inert objects by dotted names; other leaves are left out.

    Raises ValueError for containers that hold themselves, are nested too deeply, or unfold into many more entries or
    characters of names than `size`, the bytes of the file, can hold; and for two arrays of one name.
    """
    result: dict[str, Any] = {}
    owners: dict[str, Any] = {}
    budget = [100_000 + 2 * size, NAMES + size]
    path: list[Any] = []  # the keys on the way to a node; only an array's are joined

    def named() -> str:
        texts = [key if isinstance(key, str) else str(key) for key in path if key is not Mark]
        budget[1] -= sum(map(len, texts)) + len(texts)
        if budget[1] < 0:
            raise ValueError(f"the names of its arrays have more than {NAMES + size} characters")
        first = next((k for k, text in enumerate(texts) if text), len(texts))
        return ".".join(texts[first:])

    def inside(key: Any, node: Any) -> None:
        path.append(key)
        visit(node)
        path.pop()

    def visit(node: Any) -> None:
        budget[0] -= 1
        if len(path) > 100 or budget[0] < 0:
            raise ValueError("its containers are nested without end")
        if isinstance(node, _LEAVES):
            return
        finished = node.finished() if hasattr(node, "finished") else node
        if hasattr(finished, "dtype"):
            name = named()
            if owners.setdefault(name, node) is not node:
                raise ValueError(f"it has two arrays of the name {name[:200]!r}")
            result[name] = finished
        elif isinstance(node, Inert):
            for part in (node.state, node.items):
                for inner in part if isinstance(part, tuple) else (part,):
                    if isinstance(inner, dict):
                        visit_module(inner)
        elif isinstance(node, dict):
            for key, inner in node.items():
                inside(key, inner)
        elif isinstance(node, (list, tuple)):
            for k, inner in enumerate(node):
                inside(k, inner)

    def visit_module(state: dict[Any, Any]) -> None:
        # torch.nn.Module keeps these three beside its ordinary attributes; in names they do not appear.
        for key, inner in state.items():
            inside(Mark if key in ("_parameters", "_buffers", "_modules") else key, inner)

    visit(value)
    return result
