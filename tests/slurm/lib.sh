# lib.sh - sourced by the tests: a Slurm is up, $in has a tiny model and sequences, the current folder is the test's own.
set -u
. "$SRC/tests/slurm/testbed.sh"
in=$BED/in python=$BREGMAN_VENV/bin/python
jobs=$SRC/jobs sweep=$SRC/jobs/sweep
export BREGMAN=$SRC BREGMAN_BIN=$BUILD/bin OMP_NUM_THREADS=1
failed=0
fail() { echo "not ok: $*"; failed=1; }
quit() {
    fail "$@"
    exit 1
}
finish() { exit $failed; }

# long_tokens FILE N: N sequences; one in a unit of its own takes milliseconds, so that there is a middle to interrupt
long_tokens() {
    PYTHONPATH=$SRC/tests/python "$python" -c 'import sys, check_goldens, numpy
random = numpy.random.default_rng(5)
check_goldens.write_tokens(sys.argv[1], [random.integers(0, 32, 8) for _ in range(int(sys.argv[2]))])' "$@" || exit 1
}

# long_scoring: something to interrupt. The arguments of score_shards in $scoring, its scores in reference, a shard's name in $final.
long_scoring() {
    long_tokens long.h5 2000
    engine fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output factors
    engine compress_queries --model "$in/model" --factors factors --queries "$in/queries.h5" --output compressed.h5
    scoring="--model $in/model --queries compressed.h5 --tokens long.h5 --unit-sequences 1 --threads 1"
    engine score_shards $scoring --output reference
    final=shard-00000-of-00001
}

# submit FILE.sbatch OPTIONS... -- ARGUMENTS...: prints the job's id; its log is ID.log, or ID_ELEMENT.log
submit() {
    local file=$1 options=() log='%j.log'
    shift
    while [ "$1" != -- ]; do
        case $1 in --array*) log='%A_%a.log' ;; esac
        options+=("$1")
        shift
    done
    sbatch --parsable --output="$log" --kill-on-invalid-dep=yes --ntasks-per-node=2 --cpus-per-task=1 --time=10 \
        "${options[@]}" "$jobs/$file" "${@:2}"
}
engine() { "$BUILD/bin/$1" --quiet "${@:2}" --threads 1; }     # here and now: what results are compared with

# of a job or an element of an array: field(ID, NAME)
field() { scontrol show job "$1" -o 2> /dev/null | head -n 1 | grep -oE " $2=[^ ]*" | cut -d= -f2-; }
state() { scontrol show job "$1" -o 2> /dev/null | head -n 1 | grep -oE 'JobState=[A-Z_]*' | cut -d= -f2; }
is_state() { [ "$(state "$1")" = "$2" ]; }
restarted() { [ "$(field "$1" Restarts)" -ge "${2:-1}" ]; }
gone() { ! squeue -h -j "$1" 2> /dev/null | grep -q .; }
expect_state() { [ "$(state "$1")" = "$2" ] || fail "$3: job $1 is $(state "$1") $(field "$1" ExitCode) $(field "$1" Reason), not $2: $(tail -n 5 "$1.log" 2> /dev/null)"; }
started() { grep -q "run ${2:-0} started" "$1"; }
n_units() { find "$1" -name '*.h5' | wc -l; }                  # of a folder of work files
units_in() { [ "$(n_units "$1")" -ge "$2" ]; }
has_line() { grep -q -- "$2" "$1" || fail "$3: $1 does not say '$2': $(tail -n 5 "$1")"; }

# same WHAT FILE REFERENCE: all datasets are the same bytes
same() {
    "$python" "$SRC/tests/python/make_inputs.py" same "$2" "$3" && "$python" "$SRC/tests/python/make_inputs.py" same "$3" "$2" ||
        fail "$1: $2 and $3 differ"
}
