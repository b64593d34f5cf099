"""Runs networks in ONNX Runtime on the CPU."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from cbir.descriptors.onnx_weights import weight_files
from cbir.errors import CbirError
from cbir.machine import is_out_of_memory, usable_cores
from cbir.types import Floats, ModelFile

if TYPE_CHECKING:
    import onnxruntime

_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .* failed:)?")
_NO_OPERATOR = "not a registered function/op|No Op registered|Could not find an implementation"
_NO_NETWORK = "Protobuf parsing failed|No graph was found|not an ONNX file|it is empty"
_REASON_LENGTH = 300


@dataclass(frozen=True)
class Port:
    """An input or output of a network.

    `type` is ONNX Runtime's, such as "tensor(float)". A side of `shape` is a number if it is
    fixed, else a name or None; without any, the network does not say how many sides there are.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]


class Network:
    """An ONNX network that turns pixels or tokens into embeddings and class scores. Thread-safe.

    Imports ONNX Runtime and loads the network on the first call. `name` is for messages. `beside`:
    the names of the files beside `file`; weights in any other file are refused, since ONNX Runtime
    would open whatever the network names.
    """

    def __init__(self, file: ModelFile, name: str, beside: Collection[str] = ()) -> None:
        self._file, self._name, self._beside = file, name, beside
        self._loading = threading.Lock()
        self._sessions: dict[int, onnxruntime.InferenceSession] = {}

    def ports(self, *, alone: bool = False) -> tuple[list[Port], list[Port]]:
        """The inputs and the outputs; raises `CbirError` if the network cannot be loaded.

        `alone`: as `outputs` is going to be called, so that the network is loaded once.
        """
        session = self._session(alone)
        inputs, outputs = (
            [Port(port.name, port.type, tuple(port.shape)) for port in ports]
            for ports in (session.get_inputs(), session.get_outputs())
        )
        return inputs, outputs

    def outputs(
        self,
        values: NDArray[Any] | Mapping[str, NDArray[Any]],
        names: Sequence[str] = ("embedding", "logits"),
        *,
        alone: bool = False,
    ) -> tuple[Floats, ...]:
        """The outputs `names` (n, ...) for `values`: the network's one input, or inputs by name.

        `alone`: use all cores, because nothing else is to be described meanwhile. Raises
        `CbirError` if the network cannot be loaded, or lacks an output, or fails; `MemoryError`
        if that is for want of memory.
        """
        session = self._session(alone)
        try:
            if not isinstance(values, Mapping):
                (taken,) = session.get_inputs()
                values = {taken.name: values}
            return tuple(session.run(list(names), values))
        except Exception as error:  # ONNX Runtime's errors have no class in common
            if is_out_of_memory(error):
                raise MemoryError from error
            raise CbirError(
                f"{self._name} fails: {_reason(error)}", "does it fit its card?"
            ) from error

    def _session(self, alone: bool = False) -> onnxruntime.InferenceSession:
        """The session for batches, which run one a core, or for a query on all cores."""
        threads = usable_cores() if alone else 1
        with self._loading:
            if threads not in self._sessions:
                self._sessions[threads] = self._opened(threads)
            return self._sessions[threads]

    def _opened(self, threads: int) -> onnxruntime.InferenceSession:
        try:
            if others := weight_files(self._file).difference(self._beside):
                raise ValueError(f"it keeps weights in {min(others)}, which the model lacks")
        except (ValueError, OSError) as error:
            raise CbirError(f"{self._name} cannot be loaded: {error}", _cure(str(error))) from error
        with _without_interruption():
            import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait must not take the cores from those that search.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # its errors are raised, and said once
        try:
            return onnxruntime.InferenceSession(
                self._file, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors have no common base class
            if is_out_of_memory(error):
                raise MemoryError from error
            raise CbirError(
                f"{self._name} cannot be loaded: {_reason(error)}", _cure(_reason(error))
            ) from error


def _reason(error: Exception) -> str:
    """The first line of an error of ONNX Runtime, without its code and the file's path."""
    return _PREFIX.sub("", f"{error}\n").splitlines()[0][:_REASON_LENGTH]


def _cure(reason: str) -> str:
    if re.search(_NO_NETWORK, reason):
        return "it is damaged, or not an ONNX file: fetch or export it again"
    if re.search(_NO_OPERATOR, reason):
        return "update onnxruntime, or export the network with standard operators"
    return "restore its file, or export the network again"


@contextmanager
def _without_interruption() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the end of the block.

    If interrupted during its import, ONNX Runtime raises "ImportError: initialization failed",
    which hides the Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: asked.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        signal.raise_signal(asked[0])
