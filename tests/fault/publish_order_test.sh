#!/bin/sh
# What a kill cannot show: the order in which a published file gets to the disk.  Every stage runs with its calls traced;
# each file it publishes must be synced before it gets its name, its folder after that, then listed, then the writer's
# manifest synced, and nothing of it written later; the manifest is folded at the end.  Work files stand by their name and are not listed.
. "$(dirname "$0")/lib.sh"

${CC:-cc} -D_GNU_SOURCE -shared -fPIC -o "$work/trace.so" "$here/trace_files.c" -ldl || exit 1

# check LOG EXPECTED: every rename in it is in order, and there are EXPECTED or more
cat > "$work/check.py" <<'END'
import os, sys

events = [line.rstrip("\n").split(" ") for line in open(sys.argv[1])]
wrong = []

def at(event, *rest, after=-1):
    """Place of the first such event behind another, or None."""
    for i in range(after + 1, len(events)):
        if events[i] == [event, *rest]:
            return i

renames = [(i, e[1], e[2]) for i, e in enumerate(events) if e[0] in ("rename", "link") and e[2].endswith(".h5")]
fold = {e[2] for e in events if e[0] == "rename" and e[2].endswith("/MANIFEST")}
for i, temporary, final in renames:
    folder, name = os.path.split(final)
    manifest = next((e[1] for e in events if e[0] == "list" and e[2] == name and e[1].startswith(folder + "/MANIFEST.d/")), "")
    if not folder.endswith("work") and folder + "/MANIFEST" not in fold:
        wrong.append(f"{name}: its folder's manifest is not folded")
    writes = [k for k, e in enumerate(events) if e == ["write", temporary]]
    syncs = [k for k, e in enumerate(events) if e == ["sync", temporary]]
    if not writes or not syncs or not max(writes) < max(syncs) < i:
        wrong.append(f"{name}: not synced between its last write and the rename")
    if any(e[0] == "write" and e[1] in (temporary, final) for e in events[i:]):
        wrong.append(f"{name}: written after the rename")
    if folder.endswith("work"):
        if at("list", manifest, name) is not None:
            wrong.append(f"{name}: listed, though it is a work file")
        continue
    folder_synced = at("sync", folder, after=i)
    listed = at("list", manifest, name, after=i)
    if listed is None:
        wrong.append(f"{name}: not listed after the rename")
        continue
    if folder_synced is None or folder_synced > listed:
        wrong.append(f"{name}: its folder is not synced between the rename and the line of the manifest")
    manifest_synced = at("sync", manifest, after=listed)
    following = next((k for k in range(listed, len(events)) if events[k][0] in ("rename", "link")), len(events))
    if manifest_synced is None or manifest_synced > following:
        wrong.append(f"{name}: the manifest is not synced after its line")
    early = [k for k, e in enumerate(events) if e == ["list", manifest, name] and k < i]
    if len(early) >= len([k for k, _, f in renames if f == final and k <= i]):
        wrong.append(f"{name}: listed before it had its name")
    created = at("create", manifest)
    if created is not None and created < listed and not any(
            events[k] == ["sync", folder + "/MANIFEST.d"] for k in range(created, listed)):
        wrong.append(f"{name}: the new manifest's own name is not synced before its first line")
if events and events[-1][0] != "sync":
    wrong.append(f"the last event is no sync: {' '.join(events[-1])}")
if len(renames) < int(sys.argv[2]):
    wrong.append(f"only {len(renames)} files were published: is the trace complete?")
print(*wrong, sep="\n", end="\n" if wrong else "")
sys.exit(bool(wrong))
END

# traced EXPECTED STAGE ARGS...: run the stage, which publishes EXPECTED files or more
traced() {
    expected=$1 stage=$2
    shift 2
    cases=$((cases + 1))
    rm -f "$work/log"
    if ! LD_PRELOAD="$work/trace.so" TRACE_FOLDER="$out" TRACE_LOG="$work/log" "$BUILD/bin/$stage" --quiet "$@" > "$work/stdout" 2>&1; then
        fail "$stage does not run traced: $(cat "$work/stdout")"
    elif ! "$python" "$work/check.py" "$work/log" "$expected" > "$work/wrong"; then
        fail "$stage: $(cat "$work/wrong")"
    fi
}
mkdir "$out"
traced 8 fit_factors --model "$in/model" --tokens "$in/tokens.h5" --output "$out/f" --unit-sequences 10
traced 2 compress_queries --model "$in/model" --factors "$out/f" --queries "$in/queries.h5" --output "$out/c.h5" --unit-queries 1
traced 3 score_shards --model "$in/model" --queries "$out/c.h5" --tokens "$in/tokens.h5" --output "$out/s" --unit-sequences 10
traced 1 merge_scores --scores "$out/s" --output "$out/r.h5" --top 5
finish
