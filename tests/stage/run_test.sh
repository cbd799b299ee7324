#!/bin/sh
# tests/run.py: what it counts, and that a test which does not end fails, says what it was running and leaves nothing behind.
set -u
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0
fail() { echo "not ok: $*: $(cat "$work/log")"; failed=1; }
suite=$work/suite
mkdir -p "$suite/tests/some" "$suite/build"
cp "$SRC/tests/run.py" "$suite/tests/"
# script NAME BODY: a test of the suite
script() {
    printf '#!/bin/sh\n%s\n' "$2" > "$suite/tests/some/$1_test.sh"
    chmod 755 "$suite/tests/some/$1_test.sh"
}
run() { "$suite/tests/run.py" "$suite/build" "$@" > "$work/log" 2>&1; }

script good 'exit 0'
script absent 'echo no such thing; exit 77'
run || fail "passed and skipped: exit code $?"
grep -qx "1 passed, 0 failed, 1 skipped" "$work/log" || fail "counts"
grep -q "^skipped some/absent_test.sh .*: no such thing" "$work/log" || fail "why it was skipped"
run '*absent*' && fail "nothing ran: exit code 0"
script bad 'echo broken; exit 3'
run && fail "a failed test: exit code 0"
grep -q "^FAILED some/bad_test.sh .*(exit code 3)" "$work/log" && grep -q "^    broken" "$work/log" || fail "why it failed"

# one ends well when it is told to, one does not listen; both are late
script late 'trap "exit 0" TERM; sh -c "sleep 4321; :" & wait'
script deaf 'trap "" TERM; echo $$ > "$0.pid"; while :; do sleep 1; done'
LIMIT_S=2 run '*late*' && fail "a late test: exit code 0"
grep -q "^FAILED some/late_test.sh .*(exit code 124)" "$work/log" || fail "a late test"
grep -q "not ended after 2 s; running now:" "$work/log" && grep -q "^    [0-9]* s: .*sleep 4321" "$work/log" || fail "what was running"
LIMIT_S=2 run '*deaf*' && fail "a deaf test: exit code 0"
kill -0 "$(cat "$suite/tests/some/deaf_test.sh.pid")" 2> /dev/null && fail "a deaf test lives on"
exit $failed
