#!/usr/bin/env python3
"""Writes what the peers of bench_peer start from, so that all start from the same numbers.

    python3 bench/peer_inputs.py SPEC_FOLDER OUT_FOLDER

SPEC_FOLDER holds the peers' spec.py (numpy-seeded parameters and batches). For every workload a
file WORKLOAD.safetensors: parameters "p/NAME", batches "b/I/J"; filters are [h,w,in,out], images
channels-last, integers i32."""
import sys

import numpy as np
from safetensors.numpy import save_file

sys.path.insert(0, sys.argv[1])
import spec


def plain(a):
    a = np.asarray(a)
    if a.dtype.kind == "i":
        return np.ascontiguousarray(a.astype(np.int32))
    return np.ascontiguousarray(a.astype(np.float32))


for name in spec.NAMES:
    parameters, batches = spec.data(name)
    if not isinstance(parameters, dict):
        parameters = {"%02d" % i: p for i, p in enumerate(parameters)}
    if name == "resnet20":
        parameters = {k: v.transpose(2, 3, 1, 0) if v.ndim == 4 else v for k, v in parameters.items()}
        batches = [(x.transpose(0, 2, 3, 1), y) for x, y in batches]
    out = {"p/" + k: plain(v) for k, v in parameters.items()}
    out.update({"b/%d/%d" % (i, j): plain(a) for i, b in enumerate(batches) for j, a in enumerate(b)})
    save_file(out, "%s/%s.safetensors" % (sys.argv[2], name))
