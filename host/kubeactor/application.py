"""What a user's code declares, loaded and checked: actor classes by binding, their Env, the front door."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import re
import traceback
import typing
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from kubeactor.actor import Actor, ActorType
from kubeactor.env import Binding, Env, make_env
from kubeactor.ids import BINDING
from kubeactor.nearest import did_you_mean
from kubeactor.tracebacks import is_users

if TYPE_CHECKING:
    from kubeactor.call import Dispatcher

__all__ = ["Application", "UserCodeError", "bindings_of", "is_env"]

NEIGHBOURS_MAX: Final = 1000


class UserCodeError(Exception):
    """Raised when the user's code can't be served; the text is one sentence that says what to change."""


class Application:
    """The actor types by binding, the Env class and the front door of one namespace."""

    def __init__(self, bindings: Mapping[str, ActorType], env_class: type[Env] = Env, front_door: Any = None) -> None:
        self.bindings = dict(bindings)
        self.env_class = env_class
        self.front_door = front_door

    @classmethod
    def load(cls, actors: Sequence[str], front_door: str | None = None) -> Application:
        """Import what is named and check it.

        Args:
            actors: `module:Env`, which gives all its bindings; `module:Class`, bound under the class's name in
                UPPER_SNAKE; or `BINDING=module:Class`.
            front_door: `module:attribute` of an ASGI app or an `async def fetch(request, env)`.

        Raises:
            UserCodeError: when anything is missing or can't be served.
        """
        classes: dict[str, Any] = {}
        declared: dict[type[Env], str] = {}
        for text in actors:
            binding, _, target = text.rpartition("=")
            loaded = import_object(target)
            if is_env(loaded) and not binding:
                declared[loaded] = target
                found = bindings_of(loaded)
            elif not (binding or isinstance(loaded, type)):
                raise UserCodeError(f"{target} is no class: name one that derives from kubeactor.Actor, or an Env")
            else:
                found = {_binding(binding or upper_snake(getattr(loaded, "__name__", ""))): loaded}
            if twice := sorted(classes.keys() & found):
                raise UserCodeError(f"two classes are bound as {twice[0]}; name one of them: OTHER={target}")
            classes |= found
        bindings = {binding: actor_type(binding, loaded) for binding, loaded in classes.items()}
        door = import_object(front_door) if front_door else None
        if door is not None and not callable(door):
            raise UserCodeError(f"{front_door} is neither an ASGI app nor an async def fetch(request, env)")
        return cls(bindings, _env_class(bindings, declared), door)

    @property
    def front_door_is_fetch(self) -> bool:
        """Whether the front door is an `async def fetch(request, env)`; otherwise it is an ASGI app."""
        return inspect.iscoroutinefunction(self.front_door) and len(inspect.signature(self.front_door).parameters) == 2

    def make_env(self, dispatcher: Callable[[], Dispatcher], environ: Mapping[str, str] | None = None) -> Env:
        """The process's env.

        Raises:
            UserCodeError: one text that names every missing or wrong variable.
        """
        try:
            return make_env(self.env_class, self.bindings, dispatcher, environ)
        except ValueError as error:
            raise UserCodeError(str(error)) from error

    def source_files(self) -> list[Path]:
        """The files of the user's modules and packages, for a reload on change."""
        import sys

        roots = {t.cls.__module__.partition(".")[0] for t in self.bindings.values()}
        roots.add(type(self.front_door).__module__.partition(".")[0])
        roots.add(getattr(self.front_door, "__module__", "") or "")
        found = []
        here = Path.cwd().resolve()
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and (name.partition(".")[0] in roots or here in Path(file).resolve().parents):
                path = Path(file).resolve()
                if "site-packages" not in path.parts and path.suffix == ".py":
                    found.append(path)
        return sorted(set(found))


def is_env(loaded: object) -> bool:
    """Whether it is a class that declares bindings."""
    return isinstance(loaded, type) and issubclass(loaded, Env)


def bindings_of(env_class: type[Env]) -> dict[str, Any]:
    """The classes that an Env declares (`ACCOUNT: Binding[Account]`), by binding.

    Raises:
        UserCodeError: when it declares none, or a hint can't be resolved.
    """
    found = {
        name: typing.get_args(hint)[0]
        for name, hint in _hints(env_class).items()
        if typing.get_origin(hint) is Binding and BINDING.fullmatch(name)
    }
    if not found:
        raise UserCodeError(f"{env_class.__qualname__} declares no binding: write ACCOUNT: Binding[Account] into it")
    return found


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError as error:
        raise UserCodeError(
            f"a type in {cls.__qualname__} can't be resolved: {error}; move its import out of `if TYPE_CHECKING`"
        ) from error


def _binding(name: str) -> str:
    if not BINDING.fullmatch(name):
        raise UserCodeError(f"{name!r} is no binding name: upper-case letters, digits and _, as in ACCOUNT")
    return name


def actor_type(binding: str, loaded: Any) -> ActorType:
    """The type of a loaded class.

    Raises:
        UserCodeError: when it can't be served.
    """
    try:
        return ActorType(binding, loaded)
    except TypeError as error:
        raise UserCodeError(str(error)) from error


def import_object(target: str) -> Any:
    """Import `module:attribute`.

    Raises:
        UserCodeError: naming the nearest attribute when there is none of that name.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise UserCodeError(f"{target!r} is not of the form module:name, as in bank:Account")
    module = _import_module(module_name)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, [name for name in vars(found) if not name.startswith("_")])
            raise UserCodeError(f"{module_name} has no {attribute!r}{near}")
        found = getattr(found, part)
    return found


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name or name.startswith(f"{error.name}."):
            raise UserCodeError(f"there is no module {name!r} here or on the Python path{_nearest(name)}") from error
        raise UserCodeError(f"{name} can't be imported: {error}{_place(error)}") from error
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise UserCodeError(f"{name} can't be imported: {type(error).__name__}: {text}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """The user's line that raised it; a SyntaxError tells its own."""
    if isinstance(error, SyntaxError):
        return ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _nearest(name: str) -> str:
    """The module of a similar name in the folder where it was looked for, since the others are rarely meant."""
    if name.endswith(".py"):
        return f"; did you mean {name.removesuffix('.py').strip('./').replace('/', '.')!r}?"
    parent = Path(*name.split(".")[:-1])
    here = [path.stem for path in islice(parent.glob("[!._]*"), NEIGHBOURS_MAX) if _is_module(path)]
    near = difflib.get_close_matches(name.rpartition(".")[2], here, 1)
    return f"; did you mean {'.'.join((*parent.parts, near[0]))!r}?" if near else ""


def _is_module(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").exists()


def upper_snake(name: str) -> str:
    """`ShoppingCart` as SHOPPING_CART."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).upper()


def _env_class(bindings: Mapping[str, ActorType], declared: Mapping[type[Env], str]) -> type[Env]:
    found: dict[type[Env], str] = {env: f"{name} is served" for env, name in declared.items()}
    for bound in bindings.values():
        annotation = _env_annotation(bound.cls)
        if annotation is not None and not any(issubclass(env, annotation) for env in declared):
            found.setdefault(annotation, f"{bound.cls.__qualname__} has {annotation.__qualname__}")
    if len(found) > 1:
        raise UserCodeError(f"all actors share one Env, but {' and '.join(found.values())}")
    return next(iter(found), Env)


def _env_annotation(cls: type[Actor]) -> type[Env] | None:
    for base in cls.__mro__:
        if base is Actor:
            return None
        if "env" in base.__dict__.get("__annotations__", {}):
            hint = _hints(base)["env"]
            if is_env(hint):
                found: type[Env] = hint
                return found
    return None
