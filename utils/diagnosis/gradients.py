"""Follows the gradient through a part, call by call: does it arrive at the input, and if not, which line stops it?

torch.overrides.TorchFunctionMode sees every call of a tensor function from Python, and so each that leaves PyTorch. A call
that takes something the gradient follows and returns something it does not is where it is lost; hooks on what the calls
return say where it arrives as zero or non-finite.
"""

import linecache
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Literal, NamedTuple

import torch
from torch.autograd.function import FunctionCtx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from utils import device as devices
from utils.errors import InputError, one_line
from utils.paths import PROJECT

State = Literal["flows", "zero", "non-finite", "cut", "fails"]

LEAVES_TORCH = {  # calls whose result PyTorch does not see, in words
    **dict.fromkeys(("numpy", "__array__", "__dlpack__"), "conversion to NumPy"),
    **dict.fromkeys(("data_ptr", "untyped_storage"), "memory handed to a C extension"),
    **{"item": ".item()", "tolist": ".tolist()", "__float__": "float()", "__int__": "int()", "__complex__": "complex()"},
}
CONSTANTS = ("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like")
CONSTANTS += ("new_zeros", "new_ones", "new_full", "new_empty")
LIKE = ("to", "type_as", "expand_as", "view_as", "reshape_as")  # of a second tensor they take dtype, device or shape alone
COPIES = ("tensor", "as_tensor", "new_tensor")
LIBRARIES = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")]
INSTALLED = tuple({f"{path}/" for library in LIBRARIES for path in (library, library.resolve())})
SHIPPED = tuple(f"{PROJECT / folder}/" for folder in ("operators", "utils", "docs/examples/plugins"))
TORCH = (str(Path(torch.__file__).parent), __file__)


class Lost(NamedTuple):
    """Where a gradient is lost. place: "file:line", with the line of a library in brackets where it happens inside one.

    meant: in a library, or in this program's own parts, whose estimators (straight-through, a profiled scale) are on purpose.
    """

    why: str
    place: str
    code: str
    meant: bool

    def __str__(self) -> str:
        return f"{self.why} at {self.place}: {self.code}" if self.code else f"{self.why} at {self.place}"


class Flow(NamedTuple):
    """What follow() found. result: what the part returned, detached; gradient: like x, None where there is none.

    lost: where the gradient ends; where it flows, the lines that some other way of it ended at.
    """

    state: State
    result: Any
    gradient: torch.Tensor | None
    lost: tuple[Lost, ...]


def follow(
    part: Callable[[torch.Tensor], Any],
    x: torch.Tensor,
    cotangent: Callable[[torch.Tensor], torch.Tensor] = torch.ones_like,
) -> Flow:
    """The gradient of sum(w * part(x)) in x, and where it is lost. cotangent: of part(x) gives the weights w, like part(x).

    An InputError and a device out of memory are raised, every other exception of the part is the state "fails".
    """
    x = x.detach().requires_grad_()
    trace = Trace(x)
    try:
        with torch.enable_grad(), trace:
            result = part(x)
    except Exception as error:
        return failed(error, trace)
    if not isinstance(result, torch.Tensor) or not (result.is_floating_point() or result.is_complex()):
        return Flow("cut", result, None, trace.lost_before(result))
    if not result.requires_grad:
        return Flow("cut", result.detach(), None, trace.lost_before(result))
    try:
        (gradient,) = torch.autograd.grad(result, x, cotangent(result.detach()), allow_unused=True)
    except Exception as error:
        failure = failed(error, trace)
        return failure._replace(result=result.detach(), lost=trace.dead_ends() or failure.lost)
    value = result.detach()
    if gradient is None:
        return Flow("cut", value, None, trace.lost_before(result) or trace.dead_ends())
    trace.arrived(0, gradient)
    if not torch.isfinite(value).all():
        return Flow("non-finite", value, gradient, trace.first_non_finite())
    if not torch.isfinite(gradient).all():
        return Flow("non-finite", value, gradient, trace.non_finite_ends())
    if not gradient.any():
        return Flow("zero", value, gradient, trace.dead_ends())
    return Flow("flows", value, gradient, trace.lost_before(result))


def computed(part: Callable[[torch.Tensor], Any], x: torch.Tensor) -> Flow:
    """part(x) where no gradient is asked for: the state is "flows", "non-finite" or "fails"."""
    try:
        with torch.no_grad():
            result = part(x.detach())
    except Exception as error:
        return failed(error, Trace())
    finite = not isinstance(result, torch.Tensor) or bool(torch.isfinite(result).all())
    return Flow("flows" if finite else "non-finite", result, None, ())


def failed(error: Exception, trace: "Trace") -> Flow:
    """The flow of a part that raised `error`: PyTorch refuses to convert what a gradient follows, so that is a cut."""
    if isinstance(error, InputError) or devices.is_out_of_memory(error):
        raise error
    if trace.refused:
        return Flow("cut", None, None, trace.refused)
    frame, traceback = None, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is Trace.__torch_function__.__code__ and error is not trace.raised:
            raise InputError(
                f"the gradient check itself fails with torch {torch.__version__} ({type(error).__name__}: {one_line(error)}); "
                "no part of yours is at fault; install the torch of requirements.lock"
            )
        if not traceback.tb_frame.f_code.co_filename.startswith((*TORCH, *INSTALLED)):
            frame, line = traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next
    text = f"{type(error).__name__}: {one_line(error)}"
    return Flow("fails", None, None, (lost_at(text, frame, line),) if frame else (Lost(text, "PyTorch", "", True),))


@dataclass
class Call:
    """One call that the gradient follows. sources: positions of the calls that made its inputs; 0 is the input x."""

    lost: Lost
    sources: tuple[int, ...] = ()
    spoils: bool = False  # returned non-finite numbers for finite ones
    reached: bool = False  # a gradient that is not all zero arrived at what it returned
    finite: bool = True  # and all that arrived was finite


class Trace(TorchFunctionMode):
    """Context in which a part runs. x: what the gradient is asked for, or None to follow whatever asks for one itself.

    taken: the states of the gradients that were taken inside. refused: the lines at which PyTorch refused a conversion.
    raised: the last exception of a call, in contrast to one of this class itself.
    """

    def __init__(self, x: torch.Tensor | None = None) -> None:
        super().__init__()
        self.x = x
        self.taken: list[State] = []
        self.refused: tuple[Lost, ...] = ()
        self.raised: Exception | None = None
        self.calls = [Call(Lost("", "", "", False))]
        self.made = WeakTensorKeyDictionary()  # tensor that the gradient follows -> position of the call that made it
        self.lost = WeakTensorKeyDictionary()  # tensor -> where ways of the gradient to it were lost, {Lost: None} in order
        self.exits: dict[Lost, None] = {}
        self.before: dict[Lost, None] = {}  # of what went into functions with a backward of their own
        if x is not None:
            self.made[x] = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if in_function_of_ones_own():  # its backward is its own, whatever its forward does
            self.before |= self._lost_of(inputs)
            return self._call(func, args, kwargs)
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = getattr(func.__self__, "__name__", name)
        inputs = inputs[:1] if name in LIKE else inputs
        for t in inputs:
            if t not in self.made and isinstance(t.grad_fn, FunctionCtx):
                self._follow(t, Call(lost_here("an autograd.Function before this line"), (0,)))
                self.lost[t] = dict(self.before)
        followed = [t for t in inputs if t in self.made and t.requires_grad]
        lost = self._lost_of(inputs)
        newly_lost: Lost | None = None
        if (followed or lost) and (why := LEAVES_TORCH.get(name)):
            newly_lost = lost_here(why)
            self.exits |= {place: None for place in lost if place.place != newly_lost.place} | {newly_lost: None}
        try:
            result = self._call(func, args, kwargs)
        except Exception:
            if name in ("grad", "backward"):
                self.refused = tuple(lost)
            else:
                self.refused = (newly_lost,) if newly_lost else ()
            raise
        if name == "grad":
            self.taken += [state_of(g) for g in result if g is not None]
        elif name not in CONSTANTS and (followed or lost or (name == "requires_grad_" and self.x is None)):
            outputs = [args[0]] if name == "__setitem__" else tree_leaves(result)
            self._note(name, followed, lost, [t for t in outputs if isinstance(t, torch.Tensor)])
        return result

    def _call(self, func: Any, args: Any, kwargs: Any) -> Any:
        try:
            return func(*args, **kwargs)
        except Exception as error:
            self.raised = error
            raise

    def _note(self, name: str, followed: list[torch.Tensor], lost: dict[Lost, None], outputs: list[torch.Tensor]) -> None:
        call = None
        for output in outputs:
            if output.requires_grad and (followed or name == "requires_grad_"):
                if call is None:
                    sources = tuple(self.made[t] for t in followed)
                    call = Call(lost_here(f"{name}()"), sources, spoils(followed, outputs))
                self._follow(output, call)
                places = lost
            else:
                places = lost | ({lost_here(why_lost(name, output)): None} if followed else {})
            if places:
                self.lost[output] = places

    def _lost_of(self, tensors: Iterable[torch.Tensor]) -> dict[Lost, None]:
        return {place: None for t in tensors if t in self.lost for place in self.lost[t]}

    def _follow(self, output: torch.Tensor, call: Call) -> None:
        if call is not self.calls[-1]:
            self.calls.append(call)
        self.made[output] = position = len(self.calls) - 1
        if self.x is not None:
            output.register_hook(partial(self.arrived, position))

    def arrived(self, position: int, gradient: torch.Tensor) -> None:
        """Note a gradient at what call `position` returned."""
        call = self.calls[position]
        call.reached |= bool(gradient.any())
        call.finite &= bool(torch.isfinite(gradient).all())

    def lost_before(self, result: Any) -> tuple[Lost, ...]:
        """Where ways of the gradient to `result` were lost."""
        if isinstance(result, torch.Tensor) and result in self.lost:
            return tuple(self.lost[result])
        return () if isinstance(result, torch.Tensor) and result in self.made else tuple(self.exits)

    def dead_ends(self) -> tuple[Lost, ...]:
        """The calls at which a gradient arrived that passed nothing on, the last one first."""
        calls = reversed(self.calls)
        ends = (c for c in calls if c.sources and c.reached and not any(self.calls[i].reached for i in c.sources))
        return places(ends, "has no or a zero gradient")

    def non_finite_ends(self) -> tuple[Lost, ...]:
        """The calls at which a finite gradient arrived that passed a non-finite one on, the last one first."""
        ends = (c for c in reversed(self.calls) if c.finite and not all(self.calls[i].finite for i in c.sources))
        return places(ends, "has a non-finite gradient")

    def first_non_finite(self) -> tuple[Lost, ...]:
        """The calls that made non-finite numbers of finite ones."""
        return places((c for c in self.calls if c.spoils), "gives non-finite numbers")


def places(calls: Iterable[Call], what: str) -> tuple[Lost, ...]:
    """Where some calls stand, each once."""
    return tuple(dict.fromkeys(call.lost._replace(why=f"{call.lost.why} {what}") for call in calls))


def in_function_of_ones_own() -> bool:
    """Whether this is called from the forward of a torch.autograd.Function."""
    forwards = {code for kind in kinds_of(torch.autograd.Function) for code in codes_of(kind.forward)}
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != __file__:
        if frame.f_code in forwards:
            return True
        frame = frame.f_back
    return False


def kinds_of(base: type) -> Iterator[Any]:
    """All subclasses."""
    for kind in base.__subclasses__():
        yield kind
        yield from kinds_of(kind)


def codes_of(function: Any) -> Iterator[CodeType]:
    """The code of a function, and of what it decorates."""
    while function is not None:
        if hasattr(function, "__code__"):
            yield function.__code__
        function = getattr(function, "__wrapped__", None)


def why_lost(name: str, output: torch.Tensor) -> str:
    """Why what a call returned is not followed, in words."""
    if name in ("detach", "detach_"):
        return f".{name}()"
    if name == "data":
        return ".data"
    if torch.is_inference_mode_enabled():
        return f"{name}() in inference_mode"
    if not torch.is_grad_enabled():
        return f"{name}() in no_grad"
    if not (output.is_floating_point() or output.is_complex()):
        return f"{name}() to {str(output.dtype).removeprefix('torch.')}"
    return f"{name}() copies values" if name in COPIES else f"{name}() has no derivative"


def state_of(gradient: torch.Tensor) -> State:
    if not torch.isfinite(gradient).all():
        return "non-finite"
    return "flows" if gradient.any() else "zero"


def spoils(inputs: Iterable[torch.Tensor], outputs: Iterable[torch.Tensor]) -> bool:
    return not all(torch.isfinite(t).all() for t in outputs) and all(torch.isfinite(t).all() for t in inputs)


def lost_here(why: str) -> Lost:
    """Lost at the line of the innermost frame outside PyTorch, of one that is no library's where there is one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(TORCH):
        frame = frame.f_back
    inner = frame
    while frame is not None and frame.f_code.co_filename.startswith(INSTALLED):
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename == __file__:
        frame = inner
    if frame is None or inner is None:
        return Lost(why, "a C extension", "", True)
    return lost_at(why, frame, frame.f_lineno, inner if inner is not frame else None)


def lost_at(why: str, frame: FrameType, line: int, inner: FrameType | None = None) -> Lost:
    file = frame.f_code.co_filename
    place = f"{shown(file)}:{line}"
    if inner is not None:
        place += f" ({shown(inner.f_code.co_filename)}:{inner.f_lineno})"
    code = " ".join(linecache.getline(file, line).split("#")[0].split())
    return Lost(why, place, code, inner is not None or file.startswith((*INSTALLED, *SHIPPED)))


def shown(file: str) -> str:
    """The path of a source file as a reader knows it: below this folder, this project or the installed packages."""
    for folder in (*INSTALLED, Path.cwd(), PROJECT):
        if Path(file).is_relative_to(folder):
            return str(Path(file).relative_to(folder))
    return file
