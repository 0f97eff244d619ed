#!/usr/bin/env python3
"""tests/golden/weighted_errors.txt: the error of ggml's quantizers on gaussian values with importances, a line for each type.

Needs numpy, and the library of a build of ggml:  tools/mkweighted.py libggml-base.so
"""
import ctypes
import os
import sys

import numpy as np

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden")
TYPES = {"Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ2_XXS": 16, "IQ2_XS": 17, "IQ3_XXS": 18,
         "IQ1_S": 19, "IQ4_NL": 20, "IQ3_S": 21, "IQ2_S": 22, "IQ4_XS": 23, "IQ1_M": 29}
COLUMNS = 1024


class Traits(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("block", ctypes.c_int64), ("interleave", ctypes.c_int64), ("bytes", ctypes.c_size_t), ("quantized", ctypes.c_bool),
                ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)), ("from_float", ctypes.c_void_p)]


ggml = ctypes.CDLL(sys.argv[1])
ggml.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
x = np.fromfile(os.path.join(GOLDEN, "f32.f32.bin"), np.float32)[:4096].copy()
w = (x[(np.arange(COLUMNS) * 7 + 3) % COLUMNS] ** 2 + np.float32(0.01)).astype(np.float32)
weights = np.tile(w, len(x) // COLUMNS).astype(np.float64)
with open(os.path.join(GOLDEN, "weighted_errors.txt"), "w") as out:
    for name, number in TYPES.items():
        traits = ggml.ggml_get_type_traits(number).contents
        blocks = np.zeros(len(x) // traits.block * traits.bytes, np.uint8)
        y = np.empty_like(x)
        ggml.ggml_quantize_chunk(number, x.ctypes.data, blocks.ctypes.data, 0, len(x) // COLUMNS, COLUMNS, w.ctypes.data)
        traits.to_float(blocks.ctypes.data, y.ctypes.data, len(x))
        error = np.sqrt((weights * (x.astype(np.float64) - y) ** 2).sum() / (weights * x.astype(np.float64) ** 2).sum())
        out.write(f"{name} {error:.9f}\n")
