/* inputs.c - are the inputs that a file was made from as they were? */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/hash_cache.h"
#include "bregman/model_open.h"
#include "bregman/identity.h"
#include "bregman/inputs.h"
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

/* What is remembered is read again all the same. */
static void say_wrongly_remembered(const char *path, const char *entry, void *self)
{
    verifying *v = self;
    verify_say(path,
               "the hash of its content is not the one that is remembered in \"%s\": remove that file, and what was "
               "made meanwhile",
               entry);
    v->n_files++;
    v->n_bad++;
}

/* A file that is listed has the content that is listed, whatever it says of itself; else it is another than it was. */
static bg_status hash_file(const char *path, bg_hash *hash, bg_err *err)
{
    bg_status st = bg_input_identity(path, hash, err);
    if (st != BG_ESTALE)
        return st;
    verify_say(path, "%s", err->msg);
    *hash = (bg_hash){ "" };
    return BG_OK;
}

/* A folder is a model, or one of factors, which its index stands for. */
static bg_status hash_input(const char *name, bg_hash *hash, bg_err *err)
{
    struct stat about;
    char path[BG_PATH_BYTES];
    if (stat(name, &about) != 0 || !S_ISDIR(about.st_mode))
        return hash_file(name, hash, err);
    bg_status st = bg_path(path, err, "%s/config.json", name);
    if (st == BG_OK && (access(path, F_OK) == 0 || bg_adapter_is(name)))
        return hash_model(name, hash, err);
    if (st == BG_OK)
        st = bg_path(path, err, "%s/index.h5", name);
    return st == BG_OK ? hash_file(path, hash, err) : st;
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

bg_status verify_inputs(verifying *v, const bg_store *s, bool *good, bg_err *err)
{
    char **name = NULL, **hash = NULL;
    size_t n = 0, m = 0;
    *good = true;
    bg_hash_reread(say_wrongly_remembered, v);
    if (!bg_store_has(s, "run/input_name"))
        return BG_OK;
    bg_status st = bg_store_read_strings(s, "run/input_name", &name, &n, err);
    if (st == BG_OK)
        st = bg_store_read_strings(s, "run/input_hash", &hash, &m, err);
    for (size_t i = 0; i < n && i < m && st == BG_OK; i++) {
        const verify_seen *input;
        st = find_input(v, name[i], &input, err);
        if (st == BG_OK && input->good && strcmp(input->hash.hex, hash[i]) != 0) {
            verify_say(bg_store_path(s), "stale: its input \"%s\" has changed since", name[i]);
            *good = false;
        }
    }
    bg_strings_free(name, n);
    bg_strings_free(hash, m);
    return st;
}
