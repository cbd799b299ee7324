#!/bin/bash
# The layout of the code is that of .clang-format and ruff.toml: make format applies them.
cd "$SRC" || exit 1
make -s -C "$SRC" B="$BUILD" format FORMAT=check
