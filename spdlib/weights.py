"""Weight files: named tensors and a description of them, in one safetensors file that is checked.

A file's metadata hold its format, the description as JSON, and a SHA-256 of the description and
all tensors. Reading runs no code from the file, and whatever is wrong with it ends in a
``ValueError`` that names it. Files from before there was a digest are read, with a warning.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spdlib.paths import replacing, show
from spdlib.settings import explain

DIGEST = "sha256"


@dataclass(frozen=True)
class Kind:
    """A kind of weight file.

    Attributes:
        noun: Name of such a file in messages.
        written_by: The function that writes it, for messages.
        format: Names the kind in the metadata.
        key: The description's key in the metadata.
        description: Checks the description.
    """

    noun: str
    written_by: str
    format: str
    key: str
    description: type[BaseModel]

    def write(
        self, path: str | Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> Path:
        """Writes a file beside its final place and renames it, so no reader sees half of it.

        Args:
            path: Path of the file; its folder is made.
            about: The description, JSON values.
            tensors: Tensors by name, on any device.

        Raises:
            ValueError: The description is not what readers of this kind rely on.
        """
        text = json.dumps(about)
        self.checked(text)
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"format": self.format, self.key: text, DIGEST: digest(text, plain)}
        with replacing(path) as temporary:
            save_file(plain, temporary, metadata)
        return Path(path)

    def checked(self, text: str) -> dict[str, Any]:
        """The description in a file's metadata.

        Raises:
            ValueError: It is not JSON, or not what readers of this kind rely on.
        """
        try:
            return self.description.model_validate_json(text).model_dump(exclude_unset=True)
        except ValidationError as error:
            problems = explain(error, self.description)
        raise ValueError(f"the metadata are not a {self.noun}'s: {problems}")

    @contextmanager
    def open(self, path: str | Path) -> Iterator["WeightFile"]:
        """An open file. A ``ValueError`` raised inside the block gets the file's name.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not a file of this kind.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no {self.noun} at {show(path)}")
        try:
            with safe_open(path, framework="pt") as file:
                yield WeightFile(file, path, self)
        except SafetensorError as error:
            raise ValueError(f"{show(path)} is not a safetensors file ({error})") from None
        except ValueError as error:
            raise ValueError(f"{show(path)}: {error}") from None


class WeightFile:
    """A file that :meth:`Kind.open` has opened.

    Attributes:
        about: The description, checked.
    """

    def __init__(self, file: Any, path: str | Path, kind: Kind):
        self._file, self._path, self._metadata = file, path, file.metadata() or {}
        if self._metadata.get("format") != kind.format or kind.key not in self._metadata:
            raise ValueError(f"it was not written by {kind.written_by}")
        self._text = self._metadata[kind.key]
        self.about = kind.checked(self._text)

    def tensors(self, expected: Mapping[str, Tensor], check: bool = True) -> dict[str, Tensor]:
        """The tensors, on the CPU, mapped from the file: replace it by renaming, as ``write`` does.

        Args:
            expected: Tensors of the names, shapes and dtypes that must be there; their values
                and devices (``meta``, for instance) do not matter.
            check: Compare with the digest, which reads the whole file (1 to 2 GB a second).

        Raises:
            ValueError: A tensor is missing, unexpected, of another shape or dtype, or the
                content is not what was written.
        """
        found = {name: self._read(name) for name in self._file.keys()}  # noqa: SIM118
        _check_names(found, expected)
        if check:
            self._check_content(found)
        return found

    def _read(self, name: str) -> Tensor:
        try:
            return self._file.get_tensor(name)
        except (RuntimeError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"tensor {name} cannot be read ({error})") from None

    def _check_content(self, tensors: Mapping[str, Tensor]) -> None:
        held = self._metadata.get(DIGEST)
        # Only files from before have neither a digest nor anything in its place.
        if held is None and len(self._metadata) == 2:
            doubt = "whether its content is what was written cannot be checked"
            text = f"{show(self._path)} carries no digest: {doubt}; saved anew, it carries one"
            warnings.warn(text, stacklevel=4)
        elif held != digest(self._text, tensors):
            text = "its content is not what was written (the SHA-256 differs)"
            raise ValueError(f"{text}: the file is damaged")


def digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a description and of tensors: names, dtypes, shapes and bytes, by name.

    >>> digest("{}", {}) == hashlib.sha256(b"{}").hexdigest()
    True
    """
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"\n{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _check_names(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    both = sorted(found.keys() & expected.keys())
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "of another shape": [k for k in both if found[k].shape != expected[k].shape],
        "of another dtype": [k for k in both if found[k].dtype != expected[k].dtype],
    }
    said = [
        f"{title}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        for title, names in problems.items()
        if names
    ]
    if said:
        raise ValueError(f"it does not fit the network; {'; '.join(said)}")
