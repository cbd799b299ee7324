#include "bregman/identity.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/hash_cache.h"
#include "bregman/manifest.h"
#include "bregman/open.h"

bg_status bg_store_identity(const bg_store *s, bg_hash *out, bg_err *err)
{
    char *text = NULL;
    bool found = false;
    *out = (bg_hash){ "" };
    bg_status st = bg_store_get_text(s, "run", "fingerprint", &text, &found, err);
    if (st == BG_OK && found && text[0] != '\0')
        *out = bg_hash_texts((const char *const[]){ text }, 1);
    free(text);
    return st;
}

/* "" for a file that has no fingerprint. */
static bg_status read_identity(const char *path, bg_hash *out, bg_err *err)
{
    bg_store *s = NULL;
    int fd;
    *out = (bg_hash){ "" };
    bg_status st = bg_open_file(path, &fd, err); /* HDF5 would wait for a named pipe */
    if (st != BG_OK)
        return st;
    close(fd);
    if (!bg_store_is_hdf5(path))
        return BG_OK;
    st = bg_store_open(&s, path, "bregman/candidates", err); /* a file of any format */
    if (st == BG_OK)
        st = bg_store_identity(s, out, err);
    bg_store_close(s);
    return st;
}

/* Of two attempts at once both may have listed theirs: any line for the file counts. */
static bg_status is_listed_content(const char *path, const bg_hash *content, bool *same, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    bg_manifest m = { 0 };
    *same = false;
    bg_status st = bg_folder_of(path, folder, err);
    if (st == BG_OK)
        st = bg_manifest_read(&m, folder, err);
    for (size_t i = 0; i < m.n && st == BG_OK; i++)
        *same = *same ||
                (strcmp(m.entry[i].name, bg_base_name(path)) == 0 && strcmp(m.entry[i].hash.hex, content->hex) == 0);
    bg_manifest_clear(&m);
    return st;
}

bg_status bg_input_check_listed(const char *path, const bg_hash *content, bg_err *err)
{
    bg_manifest_entry last;
    bg_hash hash;
    bool listed, good = true;
    bg_status st = bg_manifest_lookup(path, &listed, &last, err);
    if (st != BG_OK || !listed)
        return st;
    if (content == NULL) {
        st = bg_hash_file_once(path, &hash, err);
        content = &hash;
    }
    if (st == BG_OK && strcmp(content->hex, last.hash.hex) != 0)
        st = is_listed_content(path, content, &good, err);
    if (st == BG_OK && !good)
        st = BG_FAIL(err, BG_ESTALE,
                     "\"%s\" was changed since it was published: its content is not what its folder's "
                     "MANIFEST lists; remove it and make it again",
                     path);
    return st;
}

bg_status bg_input_identity(const char *path, bg_hash *out, bg_err *err)
{
    bg_status st = read_identity(path, out, err);
    bool made_here = st == BG_OK && out->hex[0] != '\0';
    if (st == BG_OK && !made_here)
        st = bg_hash_file_once(path, out, err);
    return st == BG_OK ? bg_input_check_listed(path, made_here ? NULL : out, err) : st;
}
