"""What the validations of a sweep cost, said before anything is submitted."""

import os

from bregman.planner import PlanError
from bregman.sweep import validation
from bregman.validate import costs
from bregman.validate.settings import Settings


def foretell(sweep, plan, programs, drafts):
    """A line for each validation that is yet to be done.  What its settings ask of files that are there already is checked, too."""
    return [f"{job.name}: {of_job(sweep, job, programs, drafts)}" for job in plan.needed() if job.stage == "validate"]


def of_job(sweep, job, programs, drafts):
    model, made = job.model, job.validation["model"]
    missing = next((path for path in [*made["tokens"], *made["queries"]] if not os.path.exists(path)), None)
    if missing:
        return f'what it costs is known when there is "{missing}": bregman-validate {job.arguments[0]} --plan'
    data = validation.data_of(sweep, model, made["tokens"], made["queries"][0], drafts.folder(model))
    settings = Settings(job.arguments[0], data, made=False)  # the model may be yet to be trained
    profile = job.settings.get("profile")
    try:
        found = costs.plan(
            settings, programs, data["ranks"], validation.parts(job), profile and sweep.absolute(profile)
        )
    except PlanError as error:
        return f"what it costs cannot be said: bregman-plan: {error}"
    return costs.summary(found)
