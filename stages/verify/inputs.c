/* inputs.c - are the inputs that a file was made from as they were? */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/model.h"
#include "verify.h"

static bg_status hash_model(const char *dir, bg_hash *hash, bg_err *err)
{
    bg_model *m;
    bg_status st = bg_model_open(&m, dir, "all", err);
    if (st != BG_OK)
        return st;
    st = bg_model_hash(m, hash, err);
    bg_model_close(m);
    return st;
}

/* Factors and rankings stand for themselves by their fingerprint, not by their bytes. */
static bool fingerprint_gives(const char *path, const char *hex)
{
    bg_store *s = NULL;
    char *text = NULL;
    bool same = false;
    if (H5Fis_hdf5(path) > 0 && bg_store_open_any(&s, path, NULL) == BG_OK &&
        bg_store_get_text(s, "run", "fingerprint", &text, NULL, NULL) == BG_OK)
        same = strcmp(bg_hash_texts((const char *const[]){ text }, 1).hex, hex) == 0;
    H5Eclear2(H5E_DEFAULT);
    free(text);
    bg_store_close(s);
    return same;
}

static bg_status hash_input(const char *name, bg_hash *hash, bg_err *err)
{
    struct stat about;
    char config[BG_PATH_BYTES];
    if (stat(name, &about) == 0 && S_ISDIR(about.st_mode)) {
        bg_status st = bg_path(config, err, "%s/config.json", name);
        if (st == BG_OK && access(config, F_OK) == 0)
            return hash_model(name, hash, err);
        *hash = (bg_hash){ "" };    /* a folder of factors */
        return st;
    }
    return bg_hash_file(name, hash, err);
}

/* Each input is hashed once, whatever number of files was made from it. */
static bg_status find_input(verifying *v, const char *name, const verify_seen **seen, bg_err *err)
{
    bg_hash hash = { "" };
    bg_err why;
    *seen = verify_find(&v->inputs, name);
    if (*seen != NULL)
        return BG_OK;
    bool there = access(name, F_OK) == 0, good = there && hash_input(name, &hash, &why) == BG_OK;
    if (!there)
        verify_say(name, "input is not there (any more, or not from this folder): not checked");
    else if (!good)
        verify_say(name, "input cannot be hashed: %s", why.msg);
    bg_status st = verify_remember(&v->inputs, name, good, &hash, err);
    *seen = st == BG_OK ? verify_find(&v->inputs, name) : NULL;
    return st == BG_OK && *seen == NULL ? BG_FAIL(err, BG_ENOMEM, "out of memory for the list of inputs") : st;
}

static bool is_unchanged(const verify_seen *input, const char *hex)
{
    char index[BG_PATH_BYTES];
    if (strcmp(input->hash.hex, hex) == 0 || fingerprint_gives(input->path, hex))
        return true;
    return bg_path(index, NULL, "%s/index.h5", input->path) == BG_OK && access(index, F_OK) == 0 &&
           fingerprint_gives(index, hex);
}

bg_status verify_inputs(verifying *v, const bg_store *s, bool *good, bg_err *err)
{
    char **name = NULL, **hash = NULL;
    size_t n = 0, m = 0;
    *good = true;
    if (!bg_store_has(s, "run/input_name"))
        return BG_OK;
    bg_status st = bg_store_read_strings(s, "run/input_name", &name, &n, err);
    if (st == BG_OK)
        st = bg_store_read_strings(s, "run/input_hash", &hash, &m, err);
    for (size_t i = 0; i < n && i < m && st == BG_OK; i++) {
        const verify_seen *input;
        st = find_input(v, name[i], &input, err);
        if (st == BG_OK && input->good && !is_unchanged(input, hash[i])) {
            verify_say(bg_store_path(s), "stale: its input \"%s\" has changed since", name[i]);
            *good = false;
        }
    }
    bg_strings_free(name, n);
    bg_strings_free(hash, m);
    return st;
}
