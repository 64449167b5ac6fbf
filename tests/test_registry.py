from __future__ import annotations

import pytest

from edgeprune.errors import InputError
from edgeprune.runtimes import RUNTIMES


def test_names_are_the_files_of_the_folder() -> None:
    assert RUNTIMES.names() == ("onnxruntime", "openvino", "tflite")


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    with pytest.raises(InputError, match="unknown runtime 'tflit'; did you mean 'tflite'"):
        RUNTIMES.get("tflit")
