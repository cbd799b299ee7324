/* work.c - names of the work files that the phases hand on to each other. */
#include "fit_factors.h"

bg_status fit_unit_path(const fit *f, const char *phase, uint64_t u, size_t block, char out[BG_PATH_BYTES], bg_err *err)
{
    return bg_path(out, err, "%s/%s-%05llu-block-%03zu.h5", f->work, phase, (unsigned long long)u, block);
}

bg_status fit_matrix_path(const fit *f, const bg_module *mod, const char *side, char out[BG_PATH_BYTES], bg_err *err)
{
    return bg_path(out, err, "%s/%s-%s.h5", f->work, side, mod->name);
}

bool fit_block_is_tracked(const fit *f, size_t block)
{
    for (size_t i = 0; i < f->model->n_tracked; i++)
        if (f->model->tracked[i]->block == block)
            return true;
    return false;
}
