"""The parts of a validation, one after another."""

import os

from bregman.files import version_line, write_whole
from bregman.validate import local, output, peers, planted, response, retraining
from bregman.validate.experiment import Experiment
from bregman.validate.methods import METHODS, PEERS, makes


def check_peers(settings, tracked, tell):
    """{name: versions} of the other tools among the methods; says which rows they have not."""
    names = [name for name in settings["methods"]["names"] if name in PEERS]
    for name in names:
        for modules in tracked:
            if not makes(name, modules):
                tracks = ", ".join(PEERS[name].tracks)
                tell(f"no row of {METHODS[name].label} with {modules}: it tracks {tracks}")
    found = peers.check(settings, {name: PEERS[name] for name in names})
    for versions in found.values():
        tell(f"also of {versions}")
    return found


def validate(settings, stages, parts, make_experiment=Experiment, say=print):
    """Measure them; say(text) of each part's table.  What is made is in settings.output."""
    model, modules = settings["model"], settings["methods"]["modules"]
    own = [
        settings[name]["modules"] for name in ("qld", "pbo", "local", "facts", "filter") if "modules" in settings[name]
    ]
    tracked = list(dict.fromkeys(modules + own))
    head = {
        "settings": settings.recorded(),
        "version": version_line().split()[1:],
        "peers": check_peers(settings, tracked, stages.tell),
    }
    measured = output.read_lds(os.path.join(settings.output, "lds.json"), head["settings"])
    if {"lds", "qld", "pbo", "local"} & set(parts):
        main = make_experiment(settings, stages, settings.output, model["tokens"], model["queries"][0], tracked)
        retraining.check_sizes(main.sequences, settings, parts)
        if {"lds", "qld", "local"} & set(parts):
            main.check_trained()
        if "qld" in parts:
            retraining.removed_for(main.n_queries, settings)
        if "local" in parts:
            local.check_sizes(main.n_sequences, settings)
        queries = main.query_table()
        if flagged := output.query_text(queries):
            say(flagged.rstrip("\n"))
    for part in parts:
        if part == "lds":
            of, asked, found = main, queries, retraining.lds(main, settings, queries)
            measured = found
            text = output.lds_text(found)
        elif part == "qld":
            of, asked, found = main, queries, retraining.qld(main, settings, queries, measured)
            text = output.qld_text(found)
        elif part == "pbo":
            of, found = response.measure(settings, stages, main, tracked)
            asked = of.query_table()
            text = response.text(found)
        elif part == "local":
            of, asked, found = main, queries, local.measure(main, settings, stages, queries)
            text = local.text(found)
        else:
            of, asked, found = planted.measure(part, settings, stages, tracked, make_experiment)
            text = planted.text(part, found)
        say(text)
        made = {**head, "inputs": of.provenance(), "queries": asked, "part": part, "result": found}
        output.write_json(os.path.join(settings.output, f"{part}.json"), made)
        for name, figure in output.figures(part, found).items():
            write_whole(os.path.join(settings.output, name), [figure])
