"""Ids of environments: register, make, list; a thin shell over Gymnasium's registry.

    register("mine/Guess-v0", "my_package.guess:GuessEnv")
    env = make("mine/Guess-v0", format="xml")
    env = make("my_package.guess:mine/Guess-v0")     # imports the module first

Other packages register theirs through the entry-point group "treegrpo.envs" (a module, or a
function without arguments), loaded when an id is unknown or a list is asked for.
The version at the end of an id goes up whenever tasks or rewards change.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import warnings
from typing import Any, cast

import gymnasium
import gymnasium.error
from gymnasium.envs.registration import EnvSpec

from treegrpo.envs.errors import (
    TreegrpoError,
    UnknownEnv,
    UnknownOption,
    raised_at,
    suggest,
)

PLUGIN_GROUP = "treegrpo.envs"
_MAKE_OPTIONS = ("max_episode_steps", "disable_env_checker")

# Which of the ids in Gymnasium's registry came through register(), in order of arrival.
_registered: dict[str, None] = {}


def register(id: str, entry_point: str, **spec: Any) -> None:
    """Register an environment; doing it again with the same entry point changes nothing.

    Args:
        id: "namespace/Name-v0".
        entry_point: "module:Class", a string so that the EnvSpec has a JSON form.
        spec: further fields of gymnasium.EnvSpec, such as `kwargs` or `max_episode_steps`.

    Raises:
        TreegrpoError: a malformed id or entry point, or an id that is taken.
    """
    if entry_point.count(":") != 1:
        raise TreegrpoError(
            f"Entry point '{entry_point}' given for '{id}'; it must be spelled 'module:Class'."
        )
    taken = gymnasium.registry.get(id)
    if taken is not None and taken.entry_point != entry_point:
        raise TreegrpoError(
            f"Environment id '{id}' asked for {entry_point}; it is taken by {taken.entry_point}. "
            "Choose another name, or a higher version."
        )
    if taken is None:
        try:
            gymnasium.register(id=id, entry_point=entry_point, **spec)
        except gymnasium.error.Error as error:
            raise TreegrpoError(f"Environment id '{id}' cannot be registered: {error}") from error
    _registered[id] = None


def make(id: str, **kwargs: Any) -> gymnasium.Env[str, str]:
    """Return a new environment in Gymnasium's usual wrappers.

    Args:
        id: "namespace/Name-v0", or "module:namespace/Name-v0" to import the module first.
        kwargs: the environment's own options, and `max_episode_steps` and
            `disable_env_checker` of gymnasium.make.

    Raises:
        UnknownEnv: no such id (with the closest one), or its module cannot be imported.
        UnknownOption: an option that the environment does not take.
        TreegrpoError: whatever else the environment's constructor raises, as one message.
    """
    spec = find_spec(id)
    accepted = _accepted_options(spec)
    for name in kwargs:
        if accepted is not None and name not in accepted:
            raise UnknownOption(
                f"Option '{name}' of '{spec.id}' asked for; it takes: {', '.join(accepted)}."
                f"{suggest(name, accepted)}"
            )
    try:
        return cast("gymnasium.Env[str, str]", gymnasium.make(spec, **kwargs))
    except TreegrpoError:
        raise
    except Exception as error:
        given = {name: kwargs[name] for name in kwargs if name != "disable_env_checker"}
        # Gymnasium adds id and options to a TypeError, as the message below does for every error.
        fault = str(error).partition(" was raised from the environment creator")[0]
        to_do = "Give each option a value that it can use" if given else "Correct its constructor"
        raise TreegrpoError(
            f"Environment '{spec.id}' with the options {given} asked for, but it cannot be made: "
            f"{fault.rstrip('.')} ({type(error).__name__}). {to_do}."
        ) from error


def list_envs() -> list[str]:
    """Return every id that was registered here or by a plug-in, sorted."""
    load_plugins()
    return sorted(id for id in _registered if id in gymnasium.registry)


def find_spec(id: str) -> EnvSpec:
    """Return the EnvSpec of an id, importing its module or the plug-ins where needed.

    Raises:
        UnknownEnv: with the closest id.
    """
    module, _, name = id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UnknownEnv(
                f"Environment '{id}' asked for; its module cannot be imported: {error}. "
                "Check the spelling, or install the package; for a file in this folder, put the "
                "folder on the path: PYTHONPATH=. treegrpo ..."
            ) from error
        except Exception as error:  # an author's module may raise anything
            raise UnknownEnv(
                f"Environment '{id}' asked for; importing its module raised "
                f"{type(error).__name__} at {raised_at(error)}: {error}. Correct it there."
            ) from error
    if name not in gymnasium.registry:
        load_plugins()
    if name not in gymnasium.registry:
        raise UnknownEnv(
            f"Unknown environment '{name}'.{suggest(name, _registered)} "
            "List all with treegrpo envs."
        )
    return gymnasium.registry[name]


@functools.cache
def load_plugins() -> None:
    """Load the entry points of other packages, once; a failing one is a warning."""
    for point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        try:
            loaded = point.load()
            if inspect.ismodule(loaded) and loaded.__file__ is None:
                folder = next(iter(loaded.__path__))
                raise ImportError(f"the folder {folder} hides the module; run elsewhere")
            if inspect.isfunction(loaded):
                loaded()
        except Exception as error:  # noqa: BLE001 - one plug-in must not take the others away
            warnings.warn(
                f"Plug-in '{point.name}' ({point.value}) of group {PLUGIN_GROUP} failed: "
                f"{type(error).__name__}: {error}. Its environments are missing.",
                RuntimeWarning,
                stacklevel=2,
            )


def _accepted_options(spec: EnvSpec) -> list[str] | None:
    """Return the names make() takes for this environment; None when any name may be right."""
    names: dict[str, None] = {}
    for function in _constructors(spec):
        parameters = list(inspect.signature(function).parameters.values())
        kinds = {parameter.kind for parameter in parameters}
        names |= dict.fromkeys(
            p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        )
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            return [name for name in (*names, *_MAKE_OPTIONS) if name != "self"]
    return None


def _constructors(spec: EnvSpec) -> list[Any]:
    """Return what is called to build the environment: each __init__ up the class tree."""
    creator: Any = spec.entry_point
    if isinstance(creator, str):
        module, _, name = creator.partition(":")
        try:
            creator = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise UnknownEnv(
                f"Environment '{spec.id}' asked for; its entry point {spec.entry_point} cannot "
                f"be imported: {error}. Install what is missing, or fix the registration."
            ) from error
    if not inspect.isclass(creator):
        return [creator]
    family = [vars(klass) for klass in cast("type", creator).__mro__ if klass is not object]
    return [members["__init__"] for members in family if "__init__" in members]
