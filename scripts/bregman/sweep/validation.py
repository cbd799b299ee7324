"""[validate] of a sweep: models that it trains are trained again and again, to measure what their scores are worth.

Each has a job of its own, bregman-validate with a settings file that is written for it: what the sweep says of it, and [validate]."""

import json
import os

from bregman.files import write_whole
from bregman.sweep.keys import CLUSTER, NOT_FOR, STAGES, TABLE, Key, text, texts
from bregman.validate.settings import OF_STAGES, PARTS, PATHS, TABLES, SettingError, Settings, wrong_in

OWN = {"models": Key(texts), "queries": Key(text)}  # which of the sweep's; the others are a validate file's
TOP = {key: row for key, row in TABLES[""].items() if key not in ("output", "ranks")}
OF_SWEEP = ("model", "train")  # tables that the sweep itself says
INHERITED = ("fit", "compress", "score")  # those of [STAGE], where [validate.STAGE] does not say otherwise
NO_RESULT = {"validate": ("output", "parts", "ranks")}  # settings that change no number
NOT_OF_TRAINING = ("eval_steps", "save_steps", "save_dtype")  # they are about files of the model alone

NOT_TRAINED = (
    "is trained by this sweep, so it is not known how to train it again: train it here, as [train.sizes.NAME], or validate a "
    "checkpoint with bregman-validate, which goes on training it ([model] start)"
)

SUB_TABLES = {name: Key(TABLE) for name in TABLES if name and name not in OF_SWEEP}
KEYS = {**{key: row for key, row in CLUSTER.items() if key not in NOT_FOR["validate"]}, **OWN, **TOP, **SUB_TABLES}


# ---------------------------------------------------------------- what the sweep file says


def check_keys(sweep, place, table):
    """The table's keys and those of its own tables."""
    sweep.check_table(place, table, KEYS)
    for name in SUB_TABLES if isinstance(table, dict) else ():
        if isinstance(table.get(name), dict):
            for at, what in wrong_in((name,), table[name], TABLES[name]):
                sweep.problem(place + at, what)


def settings_of(sweep, model):
    """As Sweep.settings; of a table in [validate] a model may give single keys."""
    found = sweep.settings("validate", model)
    for name in SUB_TABLES:
        own = [table.get("validate", {}).get(name, {}) for table in (sweep.data, model.overrides)]
        found[name] = {**own[0], **own[1]}
    return found


def models(sweep):
    """Those that are validated: all that are trained, or those that are named."""
    if "validate" not in sweep.data:
        return []
    names = sweep.data["validate"].get("models", [m.name for m in sweep.models.values() if m.planned])
    return [sweep.models[name] for name in ([names] if isinstance(names, str) else names)]


def query_set(sweep, model):
    return sweep.queries[settings_of(sweep, model).get("queries", next(iter(sweep.queries)))]


def training_corpus(sweep, model):
    return sweep.corpora[sweep.settings("train", model).get("corpus", next(iter(sweep.corpora)))]


def check(sweep):
    """All of it, but for the sizes of files that are yet to be made."""
    place = ("validate",)
    if "validate" not in sweep.data:
        if any("validate" in model.overrides for model in sweep.models.values()):
            sweep.problem((), "models are validated where there is [validate]: add it, it may be empty")
        return
    names = sweep.data["validate"].get("models", [])
    for name in [names] if isinstance(names, str) else names:
        if name not in sweep.models:
            sweep.problem(place + ("models",), f'no model is named "{name}"')
        elif not sweep.models[name].planned:
            sweep.problem(place + ("models",), f'"{name}" {NOT_TRAINED}')
    if not names and not any(model.planned for model in sweep.models.values()):
        sweep.problem(place, f"no model {NOT_TRAINED}")
    if not sweep.problems:
        for model in models(sweep):
            check_model(sweep, model)


def check_model(sweep, model):
    own = settings_of(sweep, model)
    asked = own.get("queries")
    if asked is not None and asked not in sweep.queries:
        sweep.problem(sweep.where("validate", model, "queries"), f'no [[queries]] is named "{asked}"')
    elif asked is None and len(sweep.queries) > 1:
        sweep.problem(("validate",), f"which queries? [validate] queries takes one of {', '.join(sweep.queries)}")
    for key in ("subset", "mask"):
        if key in sweep.settings("train", model):
            what = "a model that is validated learns all of its corpus: take it out, or leave the model out of [validate] models"
            sweep.problem(sweep.where("train", model, key), what)
    for key, what in sweep.contradictions("validate", own):
        sweep.problem(sweep.where("validate", model, key), what)
    if not sweep.problems:
        try:
            Settings(settings_path(sweep, model), data_of(sweep, model, ["tokens.h5"], "queries.h5"), made=False)
        except SettingError as error:
            sweep.problem(("validate", *error.place), error.what)


# ---------------------------------------------------------------- the settings file


def settings_path(sweep, model):
    return os.path.join(sweep.output, model.name, "validate.toml")


def output_folder(sweep, model):
    return os.path.join(sweep.output, model.name, "validation")


def cores(sweep, model):
    own = sweep.settings("validate", model)
    return own["ranks_per_node"] * own["threads"]


def data_of(sweep, model, tokens, queries, config=None):
    """What the settings file has; config: a folder instead of the model's own."""
    own, train = settings_of(sweep, model), sweep.settings("train", model)
    data = {"output": "validation", "ranks": cores(sweep, model), **{key: own[key] for key in TOP if key in own}}
    data["model"] = {
        "config": config or model.planned.folder,
        "trained": model.path,
        "tokens": tokens,
        "queries": queries,
        "seed": train.get("seed", STAGES["train"]["seed"].default),
    }
    data["train"] = {key: train[key] for key in OF_STAGES["train"] if key in train and key not in NOT_OF_TRAINING}
    for name in SUB_TABLES:
        table = {**(of_stage(sweep, model, name) if name in INHERITED else {}), **own[name]}
        paths = [key for key in (*PATHS, *(["queries"] if name == "pbo" else [])) if key in table]
        data[name] = {**table, **{key: sweep.absolute(table[key]) for key in paths}}
    return data


def of_stage(sweep, model, name):
    return {key: value for key, value in sweep.settings(name, model).items() if key in OF_STAGES[name]}


def toml(data):
    lines = ["# Written by the sweep, for bregman-validate: what is changed here is written over."]
    lines += [f"{key} = {value_text(value)}" for key, value in data.items() if not isinstance(value, dict)]
    for name, table in data.items():
        if isinstance(table, dict) and table:
            lines += ["", f"[{name}]", *(f"{key} = {value_text(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def value_text(value):
    """JSON's texts, lists and numbers are TOML's, too."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {value_text(v)}" for key, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def write_settings(job):
    path = job.arguments[0]
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == job.text:
                return
    except OSError:
        pass
    write_whole(path, [job.text])


# ---------------------------------------------------------------- how far it is


def result(job, part):
    return os.path.join(os.path.dirname(job.elements[0].output), f"{part}.json")


def recorded(job, part):
    """What a part has left, or None."""
    try:
        with open(result(job, part), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def parts(job):
    return sorted(job.validation[""]["parts"], key=PARTS.index)


def parts_done(job):
    return [part for part in parts(job) if recorded(job, part) is not None]


def out_of_date(job, identity):
    """Lines on results that were measured with other settings, or on files that have changed.  identity(path): of a file that
    is there, or None."""
    wanted, problems = json.loads(json.dumps(job.validation.recorded())), []
    for part in parts_done(job):
        found, path = recorded(job, part), result(job, part)
        remedy = "remove its folder, or change the sweep's output folder"
        for table, keys in wanted.items():
            before = found.get("settings", {}).get(table, {})
            for key in dict.fromkeys([*keys, *before]):
                if key not in NO_RESULT.get(table, ()) and before.get(key) != keys.get(key):
                    name = f"[validate{'' if table == 'validate' else '.' + table}] {key}"
                    problems.append(
                        f'"{path}" was measured with {name} = {before.get(key)}, this sweep says {keys.get(key)}: {remedy}'
                    )
        inputs = found.get("inputs", {})
        for entry in [*inputs.get("tokens", []), inputs.get("queries", {})]:
            now = identity(entry["path"]) if "path" in entry else None
            if now and now != entry.get("identity"):
                problems.append(
                    f'"{path}" was measured with another "{entry["path"]}" than the one there now: {remedy}'
                )
    return problems
