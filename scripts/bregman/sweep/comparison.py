"""[compare] of a sweep: at its end compare_scales and its page, of each query set and corpus, over all models.

[compare.methods.NAME] has the models, or those that its key `models` names, ranked once more with other settings of [compress]: the
model "small:NAME".
[compare.checkpoints] NAME = [STEP, ...] has models ranked that the training of NAME left on the way: "NAME@STEP"."""

import os

from bregman.sweep.keys import CLUSTER, COUNT, NOT_FOR, STAGES, TABLE, TOP, Key, flag, one_of, texts

OPTIONS = {"top": Key(COUNT, 10), "ngrams": Key(one_of(1, 2, 3), 3), "no_layers": Key(flag, False)}  # of compare_scales
OWN = {
    "models": Key(texts),
    "queries": Key(texts),
    "corpora": Key(texts),
    "losses": Key(flag, True),
    "methods": Key(TABLE),
    "checkpoints": Key(TABLE),
}
METHOD = {**STAGES["compress"], "models": Key(texts)}
KEYS = {**{key: row for key, row in CLUSTER.items() if key not in NOT_FOR["compare"]}, **OPTIONS, **OWN}


def names(table, key, every):
    found = table.get(key, list(every))
    return [found] if isinstance(found, str) else found


def chosen(sweep, key, every):
    return names(sweep.data["compare"], key, every)


# ---------------------------------------------------------------- what the sweep file says


def check_keys(sweep, place, table):
    sweep.check_table(place, table, KEYS)
    if not isinstance(table, dict):
        return
    methods, checkpoints = (table.get(key, {}) for key in ("methods", "checkpoints"))
    for name, own in methods.items() if isinstance(methods, dict) else ():
        wrong = TOP["name"].takes(name)
        if wrong:
            sweep.problem(place + ("methods", name), f"the method's name is {wrong}")
        sweep.check_table(place + ("methods", name), own, METHOD)
    for name, steps in checkpoints.items() if isinstance(checkpoints, dict) else ():
        good = isinstance(steps, list) and steps and all(COUNT(step) is None for step in steps)
        if not good or len(set(steps)) != len(steps):
            sweep.problem(place + ("checkpoints", name), "it takes a list of steps, each once")


def check(sweep):
    if "compare" not in sweep.data:
        return
    place = ("compare",)
    for key, known in (("models", sweep.models), ("queries", sweep.queries), ("corpora", sweep.corpora)):
        found = chosen(sweep, key, known)
        for name in dict.fromkeys(found):
            if name not in known:
                sweep.problem(place + (key,), f'none is named "{name}" in this sweep')
            elif found.count(name) > 1:
                sweep.problem(place + (key,), f'"{name}" is there twice')
    if "bm25" in chosen(sweep, "models", sweep.models):
        sweep.problem(
            place + ("models",),
            '"bm25" is lexical overlap, which is compared with all models: name the model otherwise',
        )
    for method, own in sweep.data["compare"].get("methods", {}).items():
        for name in names(own, "models", []):
            if name not in chosen(sweep, "models", sweep.models):
                sweep.problem(place + ("methods", method, "models"), f'no model that is compared is named "{name}"')
    for name, steps in sweep.data["compare"].get("checkpoints", {}).items():
        check_checkpoints(sweep, place + ("checkpoints", name), name, steps)
    if sweep.problems:
        return
    for model in models(sweep):
        check_model(sweep, model)
        for variant in methods(sweep, model):
            name = variant.name.split(":")[1]
            sweep.check_preconditioner(variant, place + ("methods", name, "preconditioner"))
    if not corpora(sweep):
        sweep.problem(place, "no corpus is scored for all models: there is nothing to compare; see [score] corpora")


def scored(sweep, model):
    found = sweep.settings("score", model).get("corpora", list(sweep.corpora))
    return [found] if isinstance(found, str) else found


def corpora(sweep):
    """Those that all models score, of those that are asked for."""
    asked = chosen(sweep, "corpora", sweep.corpora)
    return [name for name in asked if all(name in scored(sweep, model) for model in models(sweep))]


def check_checkpoints(sweep, place, name, steps):
    model = sweep.models.get(name)
    if model is None or not model.planned:
        return sweep.problem(place, f'this sweep trains no model "{name}"')
    every = sweep.settings("train", model).get("save_steps", 0)
    for step in steps:
        if not every or step % every:
            sweep.problem(place, f"step {step} is not kept: [train] save_steps is {every}")
    return None


def check_model(sweep, model):
    """Models side by side have one tokenizer, or their sequences are others; and layer scores, if layers are compared."""
    first, place = models(sweep)[0], ("compare", "models")
    if model.text and (model.text.hash, model.text.eos_id) != (first.text.hash, first.text.eos_id):
        what = f'"{model.name}" has another tokenizer than "{first.name}": the same text is cut into other sequences'
        sweep.problem(place, f"{what}; compare models of one tokenizer")
    if not sweep.settings("score", model).get("layer_scores") and not sweep.data["compare"].get("no_layers"):
        sweep.problem(
            ("compare",), f'"{model.name}" has no layer scores: set [score] layer_scores = true, or no_layers = true'
        )
    for name in chosen(sweep, "corpora", sweep.corpora) if "corpora" in sweep.data["compare"] else []:
        if name not in scored(sweep, model):
            sweep.problem(("compare", "corpora"), f'"{name}" is not scored for "{model.name}": see [score] corpora')


# ---------------------------------------------------------------- models, once more


def models(sweep):
    return [sweep.models[name] for name in chosen(sweep, "models", sweep.models)] if "compare" in sweep.data else []


def checkpoints(sweep, model):
    """As models of their own; what the training left of each step."""
    steps = sweep.data["compare"].get("checkpoints", {}).get(model.name, [])
    return [
        model._replace(
            name=f"{model.name}@{step}",
            path=os.path.join(model.path, f"step-{step:08d}"),
            overrides=plain(sweep, model),
        )
        for step in sorted(steps)
    ]


def methods(sweep, model):
    """The model with other settings of compress; its factors are the same."""
    found = []
    for name, own in sweep.data["compare"].get("methods", {}).items():
        if model.name in names(own, "models", [model.name]):
            settings = {key: value for key, value in own.items() if key != "models"}
            overrides = {**plain(sweep, model), "compress": {**model.overrides.get("compress", {}), **settings}}
            found.append(model._replace(name=f"{model.name}:{name}", overrides=overrides))
    return found


def plain(sweep, model):
    """Its settings, without a page of its own, and of what is compared alone."""
    score = {**model.overrides.get("score", {}), "corpora": corpora(sweep)}
    return {**model.overrides, "score": score, "explain": {"enabled": False}, "report": {"enabled": False}}
