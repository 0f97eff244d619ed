#!/usr/bin/env python3
"""Writes src/tensor/codebooks.c from codebooks.json (the tables of the grid types as numbers).

usage: mkcodebooks.py codebooks.json > src/tensor/codebooks.c
"""
import json
import sys

TABLES = [  # name, C type, hex digits (0: decimal), entries per line
    ("iq2xxs_grid", "uint64_t", 16, 6),
    ("iq2xs_grid", "uint64_t", 16, 6),
    ("iq2s_grid", "uint64_t", 16, 6),
    ("iq3xxs_grid", "uint32_t", 8, 10),
    ("iq3s_grid", "uint32_t", 8, 10),
    ("iq1s_grid", "uint64_t", 16, 6),
    ("ksigns_iq2xs", "uint8_t", 2, 16),
    ("kvalues_iq4nl", "int8_t", 0, 16),
    ("kvalues_fp4", "int8_t", 0, 16),
]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1]) as f:
        books = json.load(f)
    print("/* Constant tables of the grid types: data of the formats, no code. Written by tools/mkcodebooks.py; do not edit. */")
    print('#include "tensor/codebooks.h"\n')
    print("/* clang-format off */")
    for name, ctype, digits, per_line in TABLES:
        if books[name]["type"] != ctype:
            sys.exit(f"{name}: {books[name]['type']}, expected {ctype}")
        values = books[name]["values"]
        print(f"const {ctype} {name}[{len(values)}] = {{")
        for i in range(0, len(values), per_line):
            line = values[i : i + per_line]
            print("    " + " ".join(f"0x{v:0{digits}x}," if digits else f"{v}," for v in line))
        print("};\n")
    print("/* clang-format on */")


main()
