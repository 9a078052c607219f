"""What a stored result depends on besides its parameters: the code that computes it and, where
floating point decides, the machine.

The code is found by following imports from the modules that compute results, so that none can be
forgotten: there is no list to keep. What counts of a module is its syntax tree without docstrings
and without what only type checkers see. It is written out here, as the texts of `ast.dump` and
`ast.unparse` differ between versions of Python.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from beta_jax.cache_folder import cache_folder

SOURCE = Path(__file__).resolve().parents[2]
ARITHMETIC = ("jaxlib", "numpy", "scipy")
"""Packages whose versions may differ in the last bit of what they compute."""

Name = tuple[str, str]
"""A module, and what is taken from it: a name, or "" for the module as such."""


class _Module(NamedTuple):
    digest: str  # of its syntax tree
    imports: Sequence[Name]
    exports: dict[str, Name]  # what it imports when first used: type checkers see where from


def code(roots: Sequence[str], source: Path = SOURCE) -> str:
    """A hash of the modules `roots` and of all modules under `source` that they import.

    Two sources that differ in comments, docstrings and layout have the same one. No module is
    imported. Raises ValueError for a root that is not there.
    """
    found = closure(roots, source)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def closure(roots: Sequence[str], source: Path = SOURCE) -> dict[str, str]:
    """The modules that `code` is a hash of, by name, each with a hash of its syntax tree."""
    find = functools.cache(functools.partial(_file, source))
    for root in roots:
        if find(root) is None:
            raise ValueError(f"there is no module {root} in {source}")
    found: dict[str, _Module] = {}
    pending: list[Name] = [(root, "") for root in roots]
    while pending:
        name, attribute = pending.pop()
        path = find(name)
        if path is None:  # of another package
            continue
        if name not in found:
            found[name] = _remembered(name, path)
            pending += found[name].imports
            pending.append((name.rpartition(".")[0], ""))  # a package is imported before its parts
        if attribute and find(f"{name}.{attribute}"):
            pending.append((f"{name}.{attribute}", ""))
        elif attribute in found[name].exports:
            pending.append(found[name].exports[attribute])
    return {name: module.digest for name, module in found.items()}


@functools.cache
def machine() -> dict[str, str]:
    """What the last bit of a floating-point result may depend on: versions, device, processor."""
    import jax

    from beta_jax.backend import instruction_set  # which loads JAX

    versions = {name: metadata.version(name) for name in ARITHMETIC}
    return versions | {"device": jax.devices()[0].device_kind, "processor": instruction_set()}


def _file(source: Path, name: str) -> Path | None:
    path = source.joinpath(*name.split("."))
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if name and file.is_file()), None)


def _remembered(name: str, path: Path) -> _Module:
    """What was read of the same text before, which parsing takes much longer than looking up."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    content = path.read_bytes()
    key = hashlib.sha256(b"\0".join([_own_source(), package.encode(), content])).hexdigest()
    note = cache_folder() / "code" / key
    try:
        return _Module(*json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):
        reader = _Reader(package)
        reader.read(ast.parse(content, path))
    module = reader.module()
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False) as draft:
            json.dump(module, draft)
        os.replace(draft.name, note)
    except OSError:
        pass
    return module


@functools.cache
def _own_source() -> bytes:
    return Path(__file__).read_bytes()


class _Reader:
    """Writes a syntax tree out as text, and notes what is imported on the way."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._text: list[str] = []
        self._imports: set[Name] = set()
        self._exports: dict[str, Name] = {}
        self._modules: dict[str, str] = {}  # what may be a module, by its name here
        self._attributes: set[tuple[str, str]] = set()  # `name.attribute`

    def module(self) -> _Module:
        digest = hashlib.sha256("\n".join(self._text).encode()).hexdigest()
        of_modules = {
            (self._modules[name], attribute)
            for name, attribute in self._attributes
            if name in self._modules
        }
        return _Module(digest, sorted(self._imports | of_modules), self._exports)

    def read(self, value: Any) -> None:
        """Write a node, a list or a constant, by the names of nodes and of fields that are set."""
        if isinstance(value, list):
            self._text.append("[")
            for item in value:
                self.read(item)
            self._text.append("]")
            return
        if not isinstance(value, ast.AST):
            self._text.append(repr(value))
            return
        match value:
            case ast.Expr(ast.Constant(str())):  # a docstring
                return
            case ast.If(ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                for node in value.body:
                    if isinstance(node, ast.ImportFrom):
                        self._exports |= self._origins(node)
                self.read(value.orelse)
                return
            case ast.Import(names):
                self._imports |= {(alias.name, "") for alias in names}
                for alias in names:  # without `as`, `import a.b` names a
                    name = alias.name if alias.asname else alias.name.partition(".")[0]
                    self._modules[alias.asname or name] = name
            case ast.ImportFrom():
                origins = self._origins(value)
                self._imports |= {*origins.values()}
                self._modules |= {local: ".".join(origin) for local, origin in origins.items()}
            case ast.Attribute(ast.Name(name), attribute):
                self._attributes.add((name, attribute))
        self._text.append(type(value).__name__)
        for field in value._fields:
            part = getattr(value, field, None)
            if part is not None and part != [] and field != "ctx":  # newer Pythons have more fields
                self._text.append(field)
                self.read(part)
        self._text.append(".")

    def _origins(self, node: ast.ImportFrom) -> dict[str, Name]:
        """Where the names come from that a statement imports, by what they are called here."""
        parts = self._package.split(".")
        base = parts[: len(parts) + 1 - node.level] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        return {alias.asname or alias.name: (module, alias.name) for alias in node.names}
