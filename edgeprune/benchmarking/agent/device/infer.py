"""Runs all samples through an artifact and saves what it says, for parity and accuracy on the device."""

from __future__ import annotations

import os

from . import sessions
from .bench import load_inputs
from .reply import Replies


def infer(
    replies: Replies, runtime: str, artifact: str, precision: str, threads: int, paths: "tuple[str, str]"
) -> None:
    """Run every sample with batch 1 and save the model's outputs: one as an array, several as arrays in one archive.

    Args:
        replies: where to tell.
        runtime: a session's name.
        artifact: the file to open.
        precision: what to compute in.
        threads: of the runtime.
        paths: inputs [samples, *input shape without the batch], and outputs, float32
            [samples, *output shape without the batch]; the latter appears by atomic rename.
    """
    inputs_path, outputs_path = paths
    samples = load_inputs(inputs_path)
    import numpy as np

    sessions.import_library(runtime)
    session = sessions.load(runtime, artifact, precision, threads)
    rows = []
    for index in range(len(samples)):
        native = session.prepare(samples[index : index + 1])
        # A copy: a runtime may hand out its own buffer, which the next run overwrites.
        rows.append([np.array(output[0]) for output in session.results(session.run(native))])
    outputs = [np.stack([row[number] for row in rows]) for number in range(len(rows[0]))]
    os.makedirs(os.path.dirname(outputs_path) or ".", exist_ok=True)
    partial = "%s.%d.part" % (outputs_path, os.getpid())
    with open(partial, "wb") as stream:
        if len(outputs) == 1:
            np.save(stream, outputs[0], allow_pickle=False)
        else:
            np.savez(stream, *outputs)
    os.replace(partial, outputs_path)
    replies.emit("inferred", samples=len(samples), shape=list(outputs[0].shape), path=outputs_path)
