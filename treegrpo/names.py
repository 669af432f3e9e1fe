"""Tables of named plug-ins: credit estimators, losses, weightings and what users add to them.

A setting holds a plug-in's name. A name of the form `module:name` imports the module first,
so that a plug-in in a user's own file needs no more than its decorator:

    # my_module.py                        # config.toml
    @credit("my_credit")                  credit = "my_module:my_credit"
    def my_credit(question): ...
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from treegrpo.envs.errors import TreegrpoError, UnknownOption, is_ours, raised_at, suggest

T = TypeVar("T")


class Names(Generic[T]):
    """The plug-ins of one kind by name; `kind` is the word for one of them in messages."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._plugins: dict[str, T] = {}

    def add(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates, and returns it unchanged.

        Raises:
            TreegrpoError: the name is taken, empty, or holds a colon.
        """
        fault = "the name is taken" if name in self._plugins else ""
        if not name or ":" in name:
            fault = "a name is not empty and holds no colon"
        if fault:
            raise TreegrpoError(
                f"{self.kind.capitalize()} '{name}' asked to be registered, but {fault}. "
                "Choose another name, or drop the old one first."
            )

        def register(plugin: T) -> T:
            self._plugins[name] = plugin
            return plugin

        return register

    def get(self, name: str) -> T:
        """Return the plug-in of that name; `module:name` imports the module first.

        Raises:
            UnknownOption: no such name, with the closest one; or no such module.
        """
        module, colon, plain = name.rpartition(":")
        if colon:
            self._import(module, name)
        if plain not in self._plugins:
            at = f" Importing '{module}' did not register it." if colon else ""
            raise UnknownOption(
                f"Unknown {self.kind} '{name}'.{at}{suggest(plain, self._plugins)} "
                f"Known: {', '.join(self.names())}; 'module:name' for one of your own."
            )
        return self._plugins[plain]

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        return sorted(self._plugins)

    def drop(self, name: str) -> None:
        """Forget a registered plug-in, so that its name is free again.

        Raises:
            UnknownOption: no such name.
        """
        self.get(name)
        del self._plugins[name.rpartition(":")[2]]

    def _import(self, module: str, name: str) -> None:
        if not all(part.isidentifier() for part in module.split(".")):
            raise UnknownOption(
                f"{self.kind.capitalize()} '{name}' asked for, but '{module}' is not the name of "
                "a module. Write it as in an import: package.module:name."
            )
        try:
            importlib.import_module(module)
        except TreegrpoError:
            raise  # a name that is taken, say: the message is whole
        except Exception as error:  # a user's module may raise anything
            raise UnknownOption(
                f"{self.kind.capitalize()} '{name}' asked for, but module '{module}' cannot be "
                f"imported ({type(error).__name__}: {error}). Correct it, install it, or put its "
                "folder on the path: PYTHONPATH=. treegrpo ..."
            ) from error


@contextlib.contextmanager
def blaming(kind: str, name: str, plugin: Callable[..., Any]) -> Generator[None]:
    """Turn whatever a user's plug-in raises inside into one message that names it and its line.

    What a plug-in of this package raises is a fault of ours, and stays as it is.

    Raises:
        TreegrpoError: the plug-in's own, or the message.
    """
    try:
        yield
    except TreegrpoError:
        raise
    except Exception as error:
        if is_ours(inspect.unwrap(plugin).__module__):
            raise
        reason = str(error).strip().rstrip(".")
        raise TreegrpoError(
            f"{kind.capitalize()} '{name}' raised {type(error).__name__} at {raised_at(error)}"
            f"{f': {reason}' if reason else ''}. Correct it."
        ) from error
