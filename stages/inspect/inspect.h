/* inspect.h - the stage without its main(), so that tests can link it. */
#ifndef BG_STAGES_INSPECT_H
#define BG_STAGES_INSPECT_H

#include <stdio.h>

#include "bregman/context.h"
#include "bregman/factor_kind.h"
#include "bregman/options.h"
#include "bregman/stage.h"

typedef struct {
    bg_list paths;
    const char *modules, *preconditioner;
    bool families;
} inspect_config;

bg_status inspect_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

/* Local.  Print the supported families, and how each was checked. */
void inspect_families(FILE *to);
/* Local.  Print what a model directory or an HDF5 file holds; of a model with its factors of that kind.
 * Errors: those of bg_model_open; BG_EIO, BG_EFORMAT naming the file. */
bg_status inspect_model(FILE *to, const char *dir, const char *modules, bg_factor_kind kind, bg_err *err) BG_MUST_CHECK;
bg_status inspect_file(FILE *to, const char *path, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_INSPECT_H */
