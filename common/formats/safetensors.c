/* safetensors.c - mapped files and the table of their tensors. */
#include "bregman/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/hash_cache.h"
#include "bregman/memory.h"
#include "bregman/open.h"
#include "bregman/path.h"
#include "json.h"
#include "lfs.h"
#include "safetensors_header.h"

typedef struct {
    char *path;
    const char *name; /* path within the model's folder */
    const unsigned char *map;
    size_t map_bytes;
    bg_st_header header;
} mapped_file;

struct bg_tensors {
    size_t n_files, n;
    mapped_file *file; /* by name */
    bg_tensor *tensor; /* by name */
};

static int by_tensor_name(const void *a, const void *b)
{
    return strcmp(((const bg_tensor *)a)->name, ((const bg_tensor *)b)->name);
}

static int by_file_name(const void *a, const void *b)
{
    return strcmp(((const mapped_file *)a)->name, ((const mapped_file *)b)->name);
}

static bg_status map_file(mapped_file *f, bg_err *err)
{
    struct stat info;
    int fd;
    bg_status st = bg_open_file(f->path, &fd, err);
    if (st != BG_OK)
        return st;
    if (fstat(fd, &info) != 0) {
        st = BG_FAIL(err, BG_EIO, "cannot stat \"%s\": %s", f->path, strerror(errno));
    } else if (info.st_size < BG_ST_LENGTH_BYTES) {
        st = BG_FAIL(err, BG_EFORMAT, "\"%s\" has %" PRId64 " bytes: too short for a safetensors file", f->path,
                     (int64_t)info.st_size);
    } else {
        void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            st = BG_FAIL(err, BG_EIO, "cannot map \"%s\": %s", f->path, strerror(errno));
        } else {
            f->map = map;
            f->map_bytes = (size_t)info.st_size;
        }
    }
    close(fd); /* the map stays */
    return st;
}

static bg_status open_one(mapped_file *f, bg_err *err)
{
    bg_status st = map_file(f, err);
    if (st == BG_OK)
        st = bg_lfs_refuse(f->path, f->map, f->map_bytes, err);
    return st == BG_OK ? bg_st_header_read(&f->header, f->map, f->map_bytes, f->path, err) : st;
}

/* One table of all files' tensors, by name; a name is there only once. */
static bg_status merge_tables(bg_tensors *set, bg_err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < set->n_files; i++)
        n += set->file[i].header.n;
    bg_status st = BG_NEW(set->tensor, n, "table of tensors", err);
    if (st != BG_OK)
        return st;
    for (size_t i = 0; i < set->n_files; i++) {
        const bg_st_header *h = &set->file[i].header;
        if (h->n > 0)
            memcpy(set->tensor + set->n, h->tensor, h->n * sizeof *h->tensor);
        set->n += h->n;
    }
    qsort(set->tensor, set->n, sizeof *set->tensor, by_tensor_name);
    for (size_t i = 1; i < set->n; i++)
        if (by_tensor_name(&set->tensor[i - 1], &set->tensor[i]) == 0)
            return BG_FAIL(err, BG_EFORMAT, "tensor \"%.100s\" is in \"%.150s\" and in \"%.150s\"", set->tensor[i].name,
                           set->tensor[i - 1].file, set->tensor[i].file);
    return BG_OK;
}

/* A set of n files that are not mapped yet. */
static bg_status new_set(bg_tensors **out, size_t n_files, bg_err *err)
{
    bg_tensors *set;
    *out = NULL;
    bg_status st = BG_NEW(set, 1, "tensor set", err);
    if (st != BG_OK)
        return st;
    if ((st = BG_NEW(set->file, n_files, "tensor files", err)) != BG_OK) {
        bg_free(set);
        return st;
    }
    set->n_files = n_files;
    *out = set;
    return BG_OK;
}

/* `folder`: how many characters of the path come before its name. */
static bg_status set_path(mapped_file *f, const char *path, size_t folder, bg_err *err)
{
    size_t n = strlen(path) + 1;
    bg_status st = BG_NEW(f->path, n, "file name", err);
    if (st != BG_OK)
        return st;
    memcpy(f->path, path, n);
    f->name = f->path + folder;
    return BG_OK;
}

static bg_status open_files(bg_tensors *set, bg_err *err)
{
    bg_status st = BG_OK;
    qsort(set->file, set->n_files, sizeof *set->file, by_file_name);
    for (size_t i = 0; i < set->n_files && st == BG_OK; i++)
        st = open_one(&set->file[i], err);
    return st == BG_OK ? merge_tables(set, err) : st;
}

bg_status bg_tensors_open_file(bg_tensors **out, const char *path, bg_err *err)
{
    const char *slash = strrchr(path, '/');
    bg_status st = new_set(out, 1, err);
    if (st == BG_OK)
        st = set_path(&(*out)->file[0], path, slash != NULL ? (size_t)(slash + 1 - path) : 0, err);
    if (st == BG_OK)
        st = open_files(*out, err);
    if (st != BG_OK) {
        bg_tensors_close(*out);
        *out = NULL;
    }
    return st;
}

/* Does a path of the index stay inside the model's folder? */
static bool is_inside(const char *path)
{
    if (*path == '\0' || *path == '/')
        return false;
    for (const char *at = path; at != NULL; at = strchr(at, '/')) {
        at += *at == '/';
        if (strncmp(at, "..", 2) == 0 && (at[2] == '/' || at[2] == '\0'))
            return false;
    }
    return true;
}

/* Name the set's files after the distinct values of the index's weight_map. */
static bg_status list_shards(bg_tensors **out, const char *dir, const char *index, json_t *weight_map, bg_err *err)
{
    const char *tensor;
    json_t *value, *shards = json_object();
    char path[BG_PATH_BYTES];
    bg_status st = shards == NULL ? BG_FAIL(err, BG_ENOMEM, "list of shards: out of memory") : BG_OK;
    json_object_foreach(weight_map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (st != BG_OK)
            break;
        if (name == NULL || !is_inside(name))
            st = BG_FAIL(err, BG_EFORMAT, "tensor \"%.200s\" has no file inside the folder in \"%s\"", tensor, index);
        else if (json_object_set_new(shards, name, json_true()) != 0)
            st = BG_FAIL(err, BG_ENOMEM, "list of shards: out of memory");
    }
    if (st == BG_OK && json_object_size(weight_map) == 0)
        st = BG_FAIL(err, BG_EFORMAT, "\"%s\" has no weight_map", index);
    if (st == BG_OK)
        st = new_set(out, json_object_size(shards), err);
    size_t i = 0;
    const char *name;
    json_object_foreach(shards, name, value)
    {
        if (st == BG_OK)
            st = bg_path(path, err, "%s/%s", dir, name);
        if (st == BG_OK)
            st = set_path(&(*out)->file[i++], path, strlen(dir) + 1, err);
    }
    json_decref(shards);
    return st;
}

static bg_status open_sharded(bg_tensors **out, const char *dir, const char *index_path, bg_err *err)
{
    json_t *index = NULL, *value;
    const char *tensor;
    bg_status st = bg_json_read(&index, index_path, err);
    if (st != BG_OK)
        return st;
    json_t *weight_map = json_object_get(index, "weight_map");
    if ((st = list_shards(out, dir, index_path, weight_map, err)) != BG_OK || (st = open_files(*out, err)) != BG_OK)
        goto out;
    json_object_foreach(weight_map, tensor, value)
    {
        const char *file = json_string_value(value);
        const bg_tensor *t = bg_tensors_find(*out, tensor);
        size_t skip = strlen(dir) + 1;
        if (t == NULL || strcmp(t->file + skip, file) != 0) {
            st = BG_FAIL(err, BG_EFORMAT, "tensor \"%.200s\" is not in \"%s\" as \"%s\" says", tensor, file,
                         index_path);
            goto out;
        }
    }
out:
    json_decref(index);
    return st;
}

static bg_status fail_without_weights(const char *dir, bg_err *err)
{
    static const char *const pickled[] = { "pytorch_model.bin", "pytorch_model.bin.index.json" };
    char path[BG_PATH_BYTES];
    for (size_t i = 0; i < 2; i++)
        if (bg_path(path, err, "%s/%s", dir, pickled[i]) == BG_OK && access(path, F_OK) == 0)
            return BG_FAIL(err, BG_EFORMAT,
                           "\"%s\" has its weights in pytorch_model.bin: bregman-bin-to-hf %s OUT makes "
                           "a folder with safetensors of it",
                           dir, dir);
    return BG_FAIL(err, BG_EIO, "no model.safetensors and no model.safetensors.index.json in \"%s\"", dir);
}

bg_status bg_tensors_open_model(bg_tensors **out, const char *dir, bg_err *err)
{
    char single[BG_PATH_BYTES], index[BG_PATH_BYTES];
    *out = NULL;
    bg_status st = bg_path(single, err, "%s/model.safetensors", dir);
    if (st == BG_OK)
        st = bg_path(index, err, "%s/model.safetensors.index.json", dir);
    if (st != BG_OK)
        return st;
    if (access(single, F_OK) == 0)
        return bg_tensors_open_file(out, single, err);
    if (access(index, F_OK) != 0)
        return fail_without_weights(dir, err);
    st = open_sharded(out, dir, index, err);
    if (st != BG_OK) {
        bg_tensors_close(*out);
        *out = NULL;
    }
    return st;
}

void bg_tensors_close(bg_tensors *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->n_files; i++) {
        mapped_file *f = &t->file[i];
        if (f->map != NULL)
            munmap((void *)(uintptr_t)f->map, f->map_bytes);
        bg_free(f->path);
        bg_st_header_clear(&f->header);
    }
    bg_free(t->file);
    bg_free(t->tensor);
    bg_free(t);
}

size_t bg_tensors_count(const bg_tensors *t) { return t->n; }

const bg_tensor *bg_tensors_at(const bg_tensors *t, size_t i)
{
    assert(i < t->n);
    return &t->tensor[i];
}

const bg_tensor *bg_tensors_find(const bg_tensors *t, const char *name)
{
    bg_tensor key = { .name = name };
    return bsearch(&key, t->tensor, t->n, sizeof *t->tensor, by_tensor_name);
}

/* Read, not looked at through the maps: these would stay in this process's memory. */
bg_status bg_tensors_hash(const bg_tensors *t, bg_hash *out, bg_err *err)
{
    bg_hash all = { "" }, content;
    bg_status st = BG_OK;
    for (size_t i = 0; i < t->n_files && st == BG_OK; i++) {
        st = bg_hash_file_once(t->file[i].path, &content, err);
        const char *const part[3] = { all.hex, t->file[i].name, content.hex };
        if (st == BG_OK)
            all = bg_hash_texts(part, 3);
    }
    *out = all;
    return st;
}
