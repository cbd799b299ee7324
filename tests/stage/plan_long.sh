#!/bin/sh
# plan: its memory, disk and FLOPs against runs of the stages on small models.
"$BREGMAN_VENV/bin/python" -c 'import h5py, numpy' 2> /dev/null || exit 77
# memory under AddressSanitizer is not that of the stages
[ -z "${ASAN_OPTIONS:-}" ] || exit 77
exec "$SRC/scripts/bench/plan.py" --check --build "$BUILD"
