#include "inspect.h"

#include <sys/stat.h>
#include <unistd.h>

#include "bregman/checkpoint.h"
#include "bregman/path.h"
#include "bregman/store.h"

/* A directory is a model, unless it has no config.json but an index of factors. */
static bg_status inspect_path(FILE *to, const char *path, const char *modules, bg_factor_kind kind, bg_err *err)
{
    struct stat about;
    char folder[BG_PATH_BYTES], config[BG_PATH_BYTES], index[BG_PATH_BYTES];
    bg_status st = bg_checkpoint_folder(path, folder, err);
    if (st == BG_OK && (stat(folder, &about) != 0 || !S_ISDIR(about.st_mode)))
        return inspect_file(to, path, err);
    if (st == BG_OK)
        st = bg_path(config, err, "%s/config.json", folder);
    if (st == BG_OK)
        st = bg_path(index, err, "%s/index.h5", folder);
    if (st != BG_OK)
        return st;
    if (access(config, F_OK) != 0 && access(index, F_OK) == 0)
        return inspect_file(to, index, err);
    return inspect_model(to, path, modules, kind, err);
}

bg_status inspect_run(const void *config, const bg_context *ctx, bg_err *err)
{
    const inspect_config *c = config;
    int kind;
    bg_status st = bg_option_word("--preconditioner", c->preconditioner, bg_factor_kind_word, &kind, err);
    if (st == BG_OK && c->paths.n == 0 && !c->families)
        st = BG_FAIL(err, BG_EARG, "--path is required");
    if (st == BG_OK && c->families && ctx->grid.world_rank == 0)
        inspect_families(stdout);
    for (size_t i = 0; i < c->paths.n && st == BG_OK && ctx->grid.world_rank == 0; i++) {
        if (i > 0 || c->families)
            putchar('\n');
        st = inspect_path(stdout, c->paths.item[i], c->modules, (bg_factor_kind)kind, err);
    }
    if (st == BG_OK && (fflush(stdout) != 0 || ferror(stdout)))
        st = BG_FAIL(err, BG_EIO, "cannot write to standard output");
    return bg_agree(ctx->grid.world, st, err);
}
