"""Tensors come out of a `.pth` file, and nothing in it runs."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbir.descriptors.torch_file import MAGIC, read_tensors
from cbir.errors import CbirError


def written(path: Path, content: Any) -> Path:
    """A file that begins as torch's does, with `content` where the state dict is, and no tensor."""
    with path.open("wb") as file:
        for part in (MAGIC, 1001, {"little_endian": True}, content, []):
            pickle.dump(part, file, protocol=2)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A file that torch wrote, in the form before version 1.6, and its tensors."""
    import torch

    torch.manual_seed(1)
    shared = torch.randn(4, 6)
    tensors = {
        "a.weight": torch.randn(3, 2, 5, 5),
        "a.bias": torch.randn(3),
        "rows": shared[1:3],
        "turned": shared.T,
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    path = tmp_path / "weights.pth"
    torch.save(OrderedDict(tensors), path, _use_new_zipfile_serialization=False)
    return path, {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.mark.training
def test_the_tensors_are_those_that_torch_saved(saved: tuple[Path, dict[str, Any]]) -> None:
    path, expected = saved
    found = read_tensors(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


@pytest.mark.training
def test_a_file_cut_off_anywhere_is_refused(saved: tuple[Path, dict[str, Any]]) -> None:
    path, _ = saved
    data = path.read_bytes()
    for length in {0, 1, 20, *range(30, len(data), 37), len(data) - 1}:
        path.write_bytes(data[:length])
        with pytest.raises(CbirError, match="is not a file of tensors"):
            read_tensors(path)


@pytest.mark.training
@pytest.mark.parametrize("what", ["module", "a list", "a number beside", "zip", "half precision"])
def test_other_things_that_torch_saves_are_refused(tmp_path: Path, what: str) -> None:
    import torch

    content: Any = {
        "module": torch.nn.Linear(2, 2),
        "a list": [torch.zeros(2)],
        "a number beside": {"a": torch.zeros(2), "epoch": 3},
        "zip": {"a": torch.zeros(2)},
        "half precision": {"a": torch.zeros(2).half()},
    }[what]
    path = tmp_path / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=what == "zip")
    with pytest.raises(CbirError, match="is not a file of tensors"):
        read_tensors(path)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, getattr, pickle.loads, io.open])
def test_no_call_of_a_file_runs(tmp_path: Path, function: Any) -> None:
    mark = tmp_path / "ran"
    argument = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    for content in (Call(function, argument), {"a": Call(function, argument)}):
        path = written(tmp_path / "evil.pth", content)
        with pytest.raises(CbirError, match="is not a tensor"):
            read_tensors(path)
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(CbirError, match="is not a tensor"):
            read_tensors(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [{"a": OrderedDict}, {"a": 3}, [1], None, {"a": {"b": 1}}])
def test_a_state_dict_holds_tensors_alone(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CbirError, match="is not a file of tensors"):
        read_tensors(written(tmp_path / "weights.pth", content))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (5,), (1,)), (3, (2,), (1,)), (0, (3, 2), (2, 1)), (-1, (2,), (1,)), (0, (2,), (-1,)),
     (0, (10**12,), (0,)), (0, (2, 2), (1,))],
)  # fmt: skip
def test_a_tensor_lies_inside_its_storage(
    offset: int, size: tuple[int, ...], stride: tuple[int, ...], tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    view = (0, offset, size, stride)
    path.write_bytes(four_numbers(*view))
    with pytest.raises(CbirError, match="is not a file of tensors"):
        read_tensors(path)
    path.write_bytes(four_numbers(0, 1, (3,), (1,)))
    np.testing.assert_array_equal(read_tensors(path)["a"], [1, 2, 3])


def four_numbers(key: int, *view: Any) -> bytes:
    """A file of the storage 0, 1, 2, 3 and one tensor `a` (offset, size, stride) of it."""
    import sys
    from types import ModuleType
    from unittest.mock import patch

    utils, torch = ModuleType("torch._utils"), ModuleType("torch")
    rebuild: Any = type("_rebuild_tensor_v2", (), {"__module__": "torch._utils"})
    storage: Any = type("FloatStorage", (), {"__module__": "torch"})
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    torch.FloatStorage = storage  # type: ignore[attr-defined]

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", storage, str(key), "cpu", 4, None) if value == "stored" else None

    file = io.BytesIO()
    with patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        for part in (MAGIC, 1001, {}):
            pickle.dump(part, file, protocol=2)
        Pickler(file, protocol=2).dump({"a": Call(rebuild, "stored", *view)})
        pickle.dump([str(key)], file, protocol=2)
    values = np.arange(4, dtype="<f4").tobytes()
    return file.getvalue() + np.int64(4).tobytes() + values


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CbirError, match="No such file"):
        read_tensors(tmp_path / "weights.pth")
