/* config.json of every family, in the spelling of transformers 4 and 5, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "bregman/config.h"
#include "bregman/rope.h"

static char folder[] = "/tmp/bg-config-XXXXXX";
static char file[64];

static bg_status read_config(const char *text, bg_model_config *c, bg_err *err)
{
    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    return bg_model_config_read(c, folder, err);
}

static bg_model_config good(const char *text)
{
    bg_model_config c;
    bg_err err = { .msg = "" };
    if (read_config(text, &c, &err) != BG_OK)
        fail_msg("%s", err.msg);
    return c;
}

static void bad(const char *text, const char *message)
{
    bg_model_config c;
    bg_err err = { .msg = "" };
    bg_status st = read_config(text, &c, &err);
    if (st != BG_EFORMAT || strstr(err.msg, message) == NULL || strstr(err.msg, file) == NULL)
        fail_msg("status %d, message '%s'; wanted '%s' about '%s'", (int)st, err.msg, message, file);
}

#define GPT2(more)                                                                          \
    "{\"model_type\":\"gpt2\",\"n_embd\":64,\"n_head\":4,\"n_layer\":3,\"n_positions\":32," \
    "\"vocab_size\":256,\"layer_norm_epsilon\":1e-05" more "}"
#define SIZES                                                                                         \
    "\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":2,\"intermediate_size\":176," \
    "\"max_position_embeddings\":128,\"vocab_size\":300"
#define NEOX(more)      "{\"model_type\":\"gpt_neox\"," SIZES ",\"layer_norm_eps\":1e-05" more "}"
#define RMS(type, more) "{\"model_type\":\"" type "\"," SIZES ",\"rms_norm_eps\":1e-06" more "}"
#define LLAMA(more)     RMS("llama", more)
#define KV              ",\"num_key_value_heads\":2"

#define EXPERTS         ",\"num_experts\":8,\"num_experts_per_tok\":2"
#define OLMOE(more)     RMS("olmoe", more)
#define QWEN3_MOE(more) RMS("qwen3_moe", KV ",\"moe_intermediate_size\":24,\"num_experts_per_tok\":2" more)

static void reads_gpt2(void **state)
{
    (void)state;
    bg_model_config c = good(GPT2(",\"n_inner\":null,\"activation_function\":\"gelu_new\""));
    assert_string_equal(c.family, "gpt2");
    assert_int_equal(c.d_model, 64);
    assert_int_equal(c.n_blocks, 3);
    assert_int_equal(c.d_head, 16);
    assert_int_equal(c.n_kv_heads, 4);
    assert_int_equal(c.d_ff, 256);
    assert_int_equal(c.max_positions, 32);
    assert_int_equal(c.vocab_size, 256);
    assert_true(c.norm_epsilon == 1e-5 && c.norm == BG_NORM_LAYER);
    assert_true(c.transposed && c.tied_head && c.qkv_bias && c.attention_out_bias && c.mlp_bias);
    assert_true(!c.gated && !c.parallel_residual && !bg_norms_outputs(&c) && !c.head_bias);
    assert_int_equal(c.qkv, BG_QKV_FUSED);
    assert_int_equal(c.activation, BG_ACT_GELU_TANH);
    assert_int_equal(c.rope.kind, BG_ROPE_NONE);
    assert_string_equal(c.names.position_embedding, "wpe");
    bg_rope_frequencies(&c.rope, c.rotary_dims, NULL); /* touches nothing */
    assert_int_equal(good(GPT2(",\"n_inner\":100")).d_ff, 100);
    assert_false(good(GPT2(",\"tie_word_embeddings\":false")).tied_head);
}

static void reads_gpt_neox(void **state)
{
    (void)state;
    bg_model_config c = good(NEOX(",\"rotary_pct\":0.5,\"rotary_emb_base\":5000,\"use_parallel_residual\":true"));
    assert_true(c.parallel_residual && !c.tied_head && c.qkv_bias && c.attention_out_bias && c.mlp_bias);
    assert_int_equal(c.qkv, BG_QKV_INTERLEAVED);
    assert_int_equal(c.rotary_dims, 8);
    assert_true(c.rope.theta == 5000);
    assert_int_equal(c.activation, BG_ACT_GELU_ERF);
    assert_string_equal(c.names.head, "embed_out");

    c = good(NEOX(",\"rope_parameters\":{\"partial_rotary_factor\":0.25,\"rope_theta\":20000.0,"
                  "\"rope_type\":\"default\"},\"attention_bias\":false,\"use_parallel_residual\":false"));
    assert_true(!c.parallel_residual && !c.qkv_bias && !c.attention_out_bias && c.mlp_bias);
    assert_int_equal(c.rotary_dims, 4);
    assert_true(c.rope.theta == 20000);

    c = good(NEOX("")); /* transformers' defaults */
    assert_int_equal(c.rotary_dims, 4);
    assert_true(c.rope.theta == 10000 && c.parallel_residual);
}

static void reads_llama(void **state)
{
    (void)state;
    bg_model_config c = good(LLAMA(""));
    assert_true(c.norm == BG_NORM_RMS && c.gated && !c.tied_head && !bg_norms_outputs(&c) && !c.parallel_residual);
    assert_true(!c.qkv_bias && !c.attention_out_bias && !c.mlp_bias);
    assert_int_equal(c.qkv, BG_QKV_SEPARATE);
    assert_int_equal(c.n_kv_heads, 4);
    assert_int_equal(c.d_head, 16);
    assert_int_equal(c.rotary_dims, 16);
    assert_true(c.rope.kind == BG_ROPE_DEFAULT && c.rope.theta == 10000);

    c = good(LLAMA(KV ",\"head_dim\":24,\"rope_theta\":100000,\"attention_bias\":true,\"mlp_bias\":true,"
                      "\"tie_word_embeddings\":true,\"rope_scaling\":null,\"hidden_act\":\"relu\""));
    assert_int_equal(c.n_kv_heads, 2);
    assert_int_equal(c.d_head, 24);
    assert_true(c.qkv_bias && c.attention_out_bias && c.mlp_bias && c.tied_head);
    assert_true(c.rope.theta == 100000);
    assert_int_equal(c.activation, BG_ACT_RELU);
}

static void reads_other_llama_kin(void **state)
{
    (void)state;
    bg_model_config c = good(RMS("mistral", KV ",\"sliding_window\":null,\"head_dim\":null"));
    assert_int_equal(c.max_positions, 128);
    assert_int_equal(c.d_head, 16);
    assert_string_equal(c.positions_key, "max_position_embeddings");

    c = good(RMS("qwen2", KV ",\"use_sliding_window\":false,\"sliding_window\":48"));
    assert_int_equal(c.max_positions, 128);
    assert_true(c.qkv_bias && !c.attention_out_bias && !c.mlp_bias && c.qk_norm == BG_QK_NORM_NONE);
    c = good(RMS("qwen3", KV ",\"head_dim\":128"));
    assert_int_equal(c.d_head, 128);
    assert_true(c.qk_norm == BG_QK_NORM_HEAD && !c.qkv_bias && !bg_norms_outputs(&c));
    assert_string_equal(c.names.q_norm, "self_attn.q_norm");

    c = good(RMS("olmo2", ""));
    assert_true(bg_norms_outputs(&c) && c.qk_norm == BG_QK_NORM_FULL && !c.qkv_bias);
    assert_string_equal(c.names.attention_out_norm, "post_attention_layernorm");
    assert_string_equal(c.names.mlp_out_norm, "post_feedforward_layernorm");
    assert_true(c.names.attention_norm == NULL && c.names.mlp_norm == NULL);
}

#define STARCODER2(more) \
    "{\"model_type\":\"starcoder2\"," SIZES ",\"norm_epsilon\":1e-05,\"num_key_value_heads\":2" more "}"

static void reads_starcoder2(void **state)
{
    (void)state;
    bg_model_config c = good(STARCODER2(""));
    assert_true(c.norm == BG_NORM_LAYER && c.norm_epsilon == 1e-5 && !c.gated && c.tied_head);
    assert_true(c.qkv_bias && c.attention_out_bias && c.mlp_bias && !c.head_bias);
    assert_true(c.qkv == BG_QKV_SEPARATE && c.activation == BG_ACT_GELU_TANH);
    assert_int_equal(c.n_kv_heads, 2);
    assert_int_equal(c.rotary_dims, 16);
    assert_string_equal(c.names.up, "mlp.c_fc");
    c = good(STARCODER2(",\"use_bias\":false,\"tie_word_embeddings\":false"));
    assert_true(!c.qkv_bias && !c.attention_out_bias && !c.mlp_bias && !c.tied_head);
    assert_int_equal(good(STARCODER2(",\"sliding_window\":48")).window, 48);
    assert_int_equal(good(STARCODER2(",\"sliding_window\":null")).window, 0);
    bad("{\"model_type\":\"starcoder2\"," SIZES ",\"norm_epsilon\":1e-05}", "key \"num_key_value_heads\" is missing");
    const char *without_window = "{\"model_type\":\"starcoder2\",\"hidden_size\":64,\"num_attention_heads\":4,"
                                 "\"num_hidden_layers\":2,\"intermediate_size\":176,\"vocab_size\":300,"
                                 "\"max_position_embeddings\":16384,\"norm_epsilon\":1e-05" KV "}";
    assert_int_equal(good(without_window).window, 0);
}

/* What a model that is trained begins with, and which row of its embedding is not trained. */
static void reads_what_training_needs(void **state)
{
    (void)state;
    assert_true(good(LLAMA("")).initializer_range == 0.02 && good(LLAMA("")).padding_token == SIZE_MAX);
    assert_true(good(LLAMA(",\"initializer_range\":0.01")).initializer_range == 0.01);
    assert_true(good(STARCODER2("")).initializer_range == 0.018042);
    assert_int_equal(good(LLAMA(",\"pad_token_id\":7")).padding_token, 7);
    assert_int_equal(good(LLAMA(",\"pad_token_id\":-1")).padding_token, 299);
    assert_true(good(LLAMA(",\"pad_token_id\":300")).padding_token == SIZE_MAX);
    assert_int_equal(good(RMS("olmo2", KV)).padding_token, 1);
    assert_true(good(RMS("olmo2", KV ",\"pad_token_id\":null")).padding_token == SIZE_MAX);
    assert_true(good(RMS("olmo2", KV)).scaled_residual == false);
    bad(LLAMA(",\"initializer_range\":-1"), "initializer_range");
}

#define LONG(type, more)                                                                    \
    "{\"model_type\":\"" type "\",\"hidden_size\":64,\"num_attention_heads\":4,"            \
    "\"num_hidden_layers\":30,\"intermediate_size\":176,\"max_position_embeddings\":32768," \
    "\"vocab_size\":300,\"rms_norm_eps\":1e-06" KV more "}"

/* Blocks from `first` on slide; window 0: none does. */
static void expect_window(const char *text, size_t window, size_t first)
{
    bg_model_config c = good(text);
    assert_int_equal(c.window, window);
    assert_int_equal(c.max_positions, 32768);
    assert_string_equal(c.positions_key, "max_position_embeddings");
    for (size_t i = 0; i < c.n_blocks; i++)
        assert_int_equal(bg_window_of(&c, i), window > 0 && i >= first ? window : SIZE_MAX);
}

/* An absent key means what it does in transformers' configuration class. */
static void reads_windows(void **state)
{
    (void)state;
    expect_window(LONG("mistral", ""), 4096, 0);
    expect_window(LONG("mistral", ",\"sliding_window\":null"), 0, 0);
    expect_window(LONG("mistral", ",\"sliding_window\":48"), 48, 0);
    expect_window(LONG("mistral", ",\"sliding_window\":40000"), 40000, 0);

    expect_window(LONG("qwen2", ""), 0, 0);
    expect_window(LONG("qwen2", ",\"sliding_window\":48"), 0, 0);
    expect_window(LONG("qwen2", ",\"use_sliding_window\":true"), 4096, 28);
    expect_window(LONG("qwen2", ",\"use_sliding_window\":true,\"sliding_window\":48"), 48, 28);
    expect_window(LONG("qwen2", ",\"use_sliding_window\":true,\"sliding_window\":null"), 0, 0);
    expect_window(LONG("qwen2", ",\"use_sliding_window\":true,\"max_window_layers\":29"), 4096, 29);
    expect_window(LONG("qwen2", ",\"use_sliding_window\":true,\"max_window_layers\":30"), 0, 0);
    expect_window(LONG("qwen2", ",\"use_sliding_window\":true,\"max_window_layers\":-1"), 4096, 0);
    expect_window(LONG("qwen3", ",\"head_dim\":16,\"use_sliding_window\":true,\"max_window_layers\":0"), 4096, 0);
    bad(LONG("qwen2", ",\"use_sliding_window\":true,\"max_window_layers\":0.5"),
        "\"max_window_layers\" is not a whole number");

    assert_int_equal(good(RMS("qwen2", KV ",\"use_sliding_window\":true,\"sliding_window\":48,\"max_window_layers\":0,"
                                          "\"layer_types\":[\"full_attention\",\"full_attention\"]"))
                         .window,
                     0);
    bg_model_config c = good(RMS("qwen2", KV ",\"use_sliding_window\":true,\"sliding_window\":48,"
                                             "\"layer_types\":[\"sliding_attention\",\"full_attention\"]"));
    assert_true(c.window == 48 && bg_window_of(&c, 0) == 48 && bg_window_of(&c, 1) == SIZE_MAX);
    bad(RMS("qwen2", KV ",\"use_sliding_window\":true,\"layer_types\":[\"full_attention\"]"),
        "layer_types has not one entry");
    bad(RMS("qwen2", KV ",\"use_sliding_window\":true,\"layer_types\":[\"full_attention\",\"chunked_attention\"]"),
        "layer_types: \"chunked_attention\" of block 1 is not supported");
}

static void reads_activations(void **state)
{
    (void)state;
    assert_int_equal(good(GPT2(",\"activation_function\":\"gelu\"")).activation, BG_ACT_GELU_ERF);
    assert_int_equal(good(GPT2(",\"activation_function\":\"gelu_pytorch_tanh\"")).activation, BG_ACT_GELU_TANH);
    assert_int_equal(good(GPT2(",\"activation_function\":\"gelu_fast\"")).activation, BG_ACT_GELU_TANH);
    assert_int_equal(good(GPT2("")).activation, BG_ACT_GELU_TANH);
    assert_int_equal(good(LLAMA(",\"hidden_act\":\"silu\"")).activation, BG_ACT_SILU);
    bad(LLAMA(",\"hidden_act\":\"quick_gelu\""), "hidden_act \"quick_gelu\" is not supported");
    bad(LLAMA(",\"hidden_act\":7"), "not a string");
}

static void expect_frequencies(const bg_model_config *c, const double *want)
{
    double got[64];
    bg_rope_frequencies(&c->rope, c->rotary_dims, got);
    for (size_t i = 0; i < c->rotary_dims / 2; i++)
        if (!(fabs(got[i] - want[i]) <= 2e-7 * want[i]))
            fail_msg("frequency %zu is %.9g, want %.9g", i, got[i], want[i]);
}

#define LLAMA3_VALUES                                                  \
    "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0," \
    "\"original_max_position_embeddings\":100"

static void scales_rope(void **state)
{
    (void)state;
    /* theta^(-i/8); at 100 original positions wavelengths above 100 are stretched by 8, below 25 kept */
    const double plain[8] = { 1,    0.316227766016838,   0.1,   0.0316227766016838,
                              0.01, 0.00316227766016838, 0.001, 0.000316227766016838 };
    double want[8];
    bg_model_config c = good(LLAMA(""));
    expect_frequencies(&c, plain);

    c = good(LLAMA(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}"));
    assert_int_equal(c.rope.kind, BG_ROPE_LINEAR);
    for (int i = 0; i < 8; i++)
        want[i] = plain[i] / 2;
    expect_frequencies(&c, want);

    const char *const spellings[] = {
        LLAMA(",\"rope_theta\":10000.0,\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3_VALUES "}"),
        LLAMA(",\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":10000.0," LLAMA3_VALUES "}"),
    };
    for (int s = 0; s < 2; s++) {
        c = good(spellings[s]);
        assert_int_equal(c.rope.kind, BG_ROPE_LLAMA3);
        assert_true(c.rope.original_positions == 100);
        for (int i = 0; i < 8; i++) {
            double wavelength = 2 * 3.14159265358979 / plain[i], smooth = (100 / wavelength - 1) / 3;
            want[i] = wavelength > 100  ? plain[i] / 8
                      : wavelength < 25 ? plain[i]
                                        : (1 - smooth) * plain[i] / 8 + smooth * plain[i];
        }
        assert_true(want[0] == 1 && want[7] == plain[7] / 8 && want[2] != plain[2] && want[2] != plain[2] / 8);
        expect_frequencies(&c, want);
    }
}

/* What transformers 5.24's _compute_yarn_parameters gives for the same settings, with its attention factor. */
static void computes_yarn(void **state)
{
    (void)state;
    const double plain[8] = {
        1, 0.223994657, 0.0416666642, 0.00395284733, 0.00124999997, 0.000395284733, 0.000125000006, 3.95284733e-05
    };
    const double exact[8] = {
        1, 0.212468684, 0.0256643984, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012, 7.90569466e-05
    };
    bg_model_config c = good(LLAMA(",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":8.0,"
                                   "\"original_max_position_embeddings\":100}"));
    assert_true(c.rope.kind == BG_ROPE_YARN && fabs(c.rope.attention_factor - 1.2079441541679836) < 1e-15);
    expect_frequencies(&c, plain);
    c = good(LLAMA(",\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":10000.0,\"factor\":null,"
                   "\"original_max_position_embeddings\":32,\"beta_fast\":4.0,\"beta_slow\":0.5,\"mscale\":0.7,"
                   "\"mscale_all_dim\":0.4,\"truncate\":false}"));
    assert_true(fabs(c.rope.attention_factor - 1.0394038191422568) < 1e-15);
    expect_frequencies(&c, exact);
    c = good(LLAMA(",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":8.0,\"attention_factor\":1.5}"));
    assert_true(c.rope.attention_factor == 1.5 && c.rope.original_positions == 128);
}

/* Within max_position_embeddings, and no sequence is longer, its frequencies are the plain ones. */
static void dynamic_is_plain(void **state)
{
    (void)state;
    bg_model_config c = good(LLAMA(",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4.0}"));
    assert_true(c.rope.kind == BG_ROPE_DEFAULT && c.rope.theta == 10000 && c.max_positions == 128);
}

#define NEO(more)                                                                      \
    "{\"model_type\":\"gpt_neo\",\"hidden_size\":64,\"num_heads\":4,\"num_layers\":4," \
    "\"max_position_embeddings\":128,\"vocab_size\":300,\"layer_norm_epsilon\":1e-05" more "}"

static void reads_gpt_neo(void **state)
{
    (void)state;
    bg_model_config c = good(NEO(",\"attention_types\":[[[\"global\",\"local\"],2]]"));
    assert_true(c.norm == BG_NORM_LAYER && c.attention_scale == 1 && c.tied_head && !c.transposed && !c.gated);
    assert_true(!c.qkv_bias && c.attention_out_bias && c.mlp_bias && c.qkv == BG_QKV_SEPARATE);
    assert_true(c.rope.kind == BG_ROPE_NONE && c.activation == BG_ACT_GELU_TANH && c.d_ff == 256 && c.window == 256);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(bg_window_of(&c, i), i % 2 ? 256 : SIZE_MAX);
    c = good(NEO(",\"attention_types\":[[[\"local\"],1],[[\"global\"],3]],\"window_size\":20"));
    assert_true(bg_window_of(&c, 0) == 20 && bg_window_of(&c, 1) == SIZE_MAX && bg_window_of(&c, 3) == SIZE_MAX);
    bad(NEO(""), "attention_types has not one entry for each of the 4 blocks"); /* the class's default is of 24 */
    bad(NEO(",\"attention_types\":[[[\"global\"],3]]"), "attention_types has not one entry");
    bad(NEO(",\"attention_types\":[[[\"global\"],5]]"), "attention_types has not one entry");
    bad(NEO(",\"attention_types\":[[[\"global\",\"sparse\"],2]]"), "attention_types: \"sparse\" is not supported");
    bad(NEO(",\"attention_types\":[\"global\"]"), "attention_types is not a list");
}

static void reads_olmo(void **state)
{
    (void)state;
    bg_model_config c = good("{\"model_type\":\"olmo\"," SIZES ",\"clip_qkv\":8.0}");
    assert_true(c.norm == BG_NORM_LAYER && c.norm_epsilon == 1e-5 && c.fixed_gain && c.gated && c.clip_qkv == 8);
    assert_true(!c.tied_head && !c.qkv_bias && c.padding_token == 1);
    assert_true(good("{\"model_type\":\"olmo\"," SIZES ",\"clip_qkv\":null}").clip_qkv == 0);
    bad("{\"model_type\":\"olmo\"," SIZES ",\"clip_qkv\":-1}", "key \"clip_qkv\" is -1");
}

#define OLMO3_YARN "{\"rope_type\":\"yarn\",\"factor\":8.0,\"original_max_position_embeddings\":100}"

static void reads_olmo3(void **state)
{
    (void)state;
    bg_model_config c = good(RMS("olmo3", KV ",\"rope_theta\":500000,\"rope_scaling\":" OLMO3_YARN));
    assert_true(bg_norms_outputs(&c) && c.names.attention_norm == NULL && c.qk_norm == BG_QK_NORM_FULL);
    assert_true(c.has_sliding_rope && c.rope.kind == BG_ROPE_YARN && c.sliding_rope.kind == BG_ROPE_DEFAULT);
    assert_true(c.rope.theta == 500000 && c.sliding_rope.theta == 500000 && c.sliding_rope.attention_factor == 1);
    assert_true(c.window == 4096 && bg_window_of(&c, 0) == 4096 && bg_window_of(&c, 1) == 4096);
    c = good(RMS("olmo3", KV ",\"layer_types\":[\"full_attention\",\"sliding_attention\"],\"sliding_window\":9,"
                             "\"rope_parameters\":{\"full_attention\":" OLMO3_YARN
                             ",\"sliding_attention\":{\"rope_theta\":7,\"rope_type\":\"default\"}}"));
    assert_true(bg_window_of(&c, 0) == SIZE_MAX && bg_window_of(&c, 1) == 9);
    assert_true(c.rope.kind == BG_ROPE_YARN && c.rope.theta == 500000 && c.sliding_rope.theta == 7);
    c = good(LONG("olmo3", ""));
    for (size_t i = 0; i < c.n_blocks; i++)
        assert_int_equal(bg_window_of(&c, i), i % 4 == 3 ? SIZE_MAX : 4096);
    bad(RMS("olmo3", KV ",\"rope_theta\":10000"), "versions of transformers differ");
    bad(RMS("olmo3", KV ",\"rope_parameters\":" OLMO3_YARN), "must be those of full_attention and sliding_attention");
    bad(RMS("olmo3", KV ",\"sliding_window\":null"), "key \"sliding_window\" gives no window");
    bad(RMS("olmo3", KV ",\"layer_types\":[\"full_attention\"]"), "layer_types has not one entry");
}

static void reads_smollm3(void **state)
{
    (void)state;
    bg_model_config c = good(LONG("smollm3", ""));
    assert_true(c.tied_head && c.rope.theta == 2000000 && c.window == 0);
    for (size_t i = 0; i < c.n_blocks; i++)
        assert_int_equal(bg_rotates(&c, i), i % 4 != 3);
    c = good(RMS("smollm3", KV ",\"no_rope_layers\":[0,1],\"use_sliding_window\":true,\"sliding_window\":20"));
    assert_true(!bg_rotates(&c, 0) && bg_rotates(&c, 1) && bg_window_of(&c, 0) == 20 &&
                bg_window_of(&c, 1) == SIZE_MAX);
    c = good(RMS("smollm3", KV ",\"no_rope_layer_interval\":2,\"pad_token_id\":null"));
    assert_true(bg_rotates(&c, 0) && !bg_rotates(&c, 1) && c.padding_token == SIZE_MAX);
    bad(RMS("smollm3", KV ",\"no_rope_layers\":[0]"), "no_rope_layers has not one entry");
    bad(RMS("smollm3", KV ",\"no_rope_layers\":[0,2]"), "no_rope_layers of block 1 is neither 0 nor 1");
    bad(RMS("smollm3", KV ",\"sliding_window\":20,\"layer_types\":[\"sliding_attention\",\"full_attention\"]"),
        "but use_sliding_window is false");
}

#define GEMMA(type, more) RMS(type, KV ",\"head_dim\":16" more)

static void reads_gemma(void **state)
{
    (void)state;
    bg_model_config c = good(GEMMA("gemma2", ""));
    assert_true(c.gain_from_one && c.tied_head && c.gated && c.activation == BG_ACT_GELU_TANH);
    assert_true(c.attention_cap == 50 && c.logit_cap == 30 && c.attention_scale == 1.0 / 16 && c.embedding_scale == 8);
    assert_true(bg_window_of(&c, 0) == 4096 && bg_window_of(&c, 1) == SIZE_MAX && c.rope.theta == 10000);
    assert_string_equal(c.names.mlp_norm, "pre_feedforward_layernorm");
    assert_string_equal(c.names.mlp_out_norm, "post_feedforward_layernorm");
    c = good(GEMMA("gemma2", ",\"attn_logit_softcapping\":null,\"final_logit_softcapping\":7,"
                             "\"query_pre_attn_scalar\":25,\"hidden_act\":\"relu\""));
    assert_true(c.attention_cap == 0 && c.logit_cap == 7 && c.attention_scale == 0.2);
    assert_int_equal(c.activation, BG_ACT_GELU_TANH); /* "hidden_activation" is what counts */
    c = good(GEMMA("gemma3_text",
                   ",\"rope_theta\":5000,\"rope_local_base_freq\":300,\"sliding_window\":20,"
                   "\"sliding_window_pattern\":2,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8}"));
    assert_true(c.attention_cap == 0 && c.logit_cap == 0 && c.qk_norm == BG_QK_NORM_HEAD);
    assert_true(c.rope.kind == BG_ROPE_LINEAR && c.rope.theta == 5000 && c.sliding_rope.theta == 300);
    assert_true(c.sliding_rope.kind == BG_ROPE_DEFAULT && bg_window_of(&c, 0) == 20 && bg_window_of(&c, 1) == SIZE_MAX);
    c = good(GEMMA("gemma3_text", ""));
    assert_true(c.rope.theta == 1000000 && c.sliding_rope.theta == 10000 && bg_window_of(&c, 1) == 4096);
    bad(GEMMA("gemma3_text", ",\"attn_logit_softcapping\":50"), "attn_logit_softcapping is not supported");
    bad(GEMMA("gemma2", ",\"use_bidirectional_attention\":true"),
        "use_bidirectional_attention = true is not supported");
    bad(RMS("gemma2", KV), "key \"head_dim\" is missing");
    bad(RMS("gemma3", KV), "model_type \"gemma3\" is not supported"); /* with images */
}

static void reads_apertus(void **state)
{
    (void)state;
    bg_model_config c = good(RMS("apertus", KV));
    assert_true(c.activation == BG_ACT_XIELU && !c.gated && c.qk_norm == BG_QK_NORM_HEAD && !c.tied_head);
    assert_true(c.rope.kind == BG_ROPE_LLAMA3 && c.rope.theta == 12000000 && c.rope.factor == 8);
    assert_string_equal(c.names.mlp_norm, "feedforward_layernorm");
    c = good(RMS("apertus", KV ",\"rope_theta\":50,\"rope_scaling\":{\"rope_type\":\"default\"}"));
    assert_true(c.rope.kind == BG_ROPE_DEFAULT && c.rope.theta == 50);
    bad(LLAMA(",\"hidden_act\":\"xielu\""), "hidden_act \"xielu\" is not supported");
}

/* Keys that transformers' configuration classes do not look at. */
static void passes_over_other_spellings(void **state)
{
    (void)state;
    bg_model_config c = good(NEOX(",\"rope_theta\":5000,\"partial_rotary_factor\":0.5"));
    assert_true(c.rope.theta == 10000);
    assert_int_equal(c.rotary_dims, 4);
    c = good(LLAMA(",\"original_max_position_embeddings\":32,"
                   "\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3_VALUES "}"));
    assert_true(c.rope.original_positions == 100);
}

/* Python's json writes them, and transformers reads them. */
static void reads_odd_numbers(void **state)
{
    static const char *const number[] = {
        "NaN",   "Infinity", "-Infinity", "1000000000000000019884624838656", "-1000000000000000019884624838656",
        "1e999", "-1E+999"
    };
    char text[1000];
    (void)state;
    for (size_t i = 0; i < sizeof number / sizeof number[0]; i++) {
        snprintf(text, sizeof text, LLAMA(",\"limits\":[0.0,%s, 1],\"text\":\"\\\"NaN, \\\\\",\"more\":%s"), number[i],
                 number[i]);
        assert_int_equal(good(text).d_model, 64);
        snprintf(text, sizeof text, LLAMA(",\"head_dim\":%s"), number[i]);
        bad(text, "key \"head_dim\" is not a whole number");
        snprintf(text, sizeof text, LLAMA(",\"rope_theta\":%s"), number[i]);
        bad(text, "key \"rope_theta\" is not a number");
        snprintf(text, sizeof text, LLAMA(",\"hidden_act\":%s"), number[i]);
        bad(text, "hidden_act \"\" is not supported");
        snprintf(text, sizeof text, LLAMA(",\"mlp_bias\":%s"), number[i]);
        bad(text, "neither true nor false");
    }
    bg_model_config c = good(LLAMA(",\"x\":123456789012345678,\"y\":-123456789012345678901.5e3,\"NaN\":\"1e999\""));
    assert_int_equal(c.d_model, 64);
    bad(LLAMA(",\"x\":Infinite"), "not valid JSON");
    bad(LLAMA(",\"x\":nan"), "not valid JSON");
    bad(LLAMA(",\"x\":--Infinity"), "not valid JSON");
    bad("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a Git LFS pointer");
}

static void refuses_rope(void **state)
{
    (void)state;
    bad(LLAMA(",\"rope_scaling\":{\"rope_type\":\"yarn\"}"), "key \"factor\" is missing");
    bad(LLAMA(",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"beta_fast\":-1}"), "key \"beta_fast\" is -1");
    bad(LLAMA(",\"rope_scaling\":{\"type\":\"dynamic\"}"), "key \"factor\" is missing");
    bad(LLAMA(",\"rope_parameters\":{\"rope_type\":\"longrope\"}"), "rope type \"longrope\"");
    bad(LLAMA(",\"rope_scaling\":{\"type\":\"linear\"}"), "key \"factor\" is missing");
    bad(LLAMA(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}"), "key \"factor\" is 0");
    bad(LLAMA(",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8}"), "key \"low_freq_factor\" is missing");
    bad(LLAMA(",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}"),
        "not above low_freq_factor");
    bad(LLAMA(",\"rope_scaling\":\"linear\""), "key \"rope_scaling\" is not an object");
    bad(LLAMA(",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}"), "differ by layer");
    bad(LLAMA(",\"partial_rotary_factor\":0.5"), "partial_rotary_factor 0.5 is not supported for llama");
    bad(LLAMA(",\"rope_theta\":-1"), "key \"rope_theta\" is -1");
    bad(LLAMA(",\"rope_theta\":1e-300"), "key \"rope_theta\" is 1e-300, not a positive float32 number");
    bad(LLAMA(",\"rope_theta\":1e300"), "key \"rope_theta\" is 1e+300");
    bad(LLAMA(",\"rope_theta\":1e-37,\"rope_scaling\":{\"type\":\"linear\",\"factor\":1e-10}"), "a frequency of inf");
    bad(LLAMA(",\"head_dim\":2050"), "at most 2048 are supported");
    assert_int_equal(good(LLAMA(",\"head_dim\":2048")).rotary_dims, 2048);
    bad(LLAMA(",\"head_dim\":15"), "15 of each head's 15 dimensions");
    bad(NEOX(",\"rotary_pct\":0.01"), "0 of each head's 16 dimensions");
    bad(NEOX(",\"rotary_pct\":0.2"), "3 of each head's 16 dimensions");
    bad(NEOX(",\"rotary_pct\":1.5"), "partial_rotary_factor 1.5 is not supported");
}

/* Which blocks' MLPs are plain, as a number. */
static unsigned plain(const char *text)
{
    bg_model_config c = good(text);
    unsigned bits = 0;
    for (size_t l = 0; l < c.n_blocks; l++)
        bits |= (unsigned)!bg_config_has_experts(&c, l) << l;
    return bits;
}

static void reads_experts(void **state)
{
    (void)state;
    bg_model_config c = good(OLMOE(EXPERTS));
    assert_true(c.n_experts == 8 && c.experts_per_token == 2 && c.d_expert == 176 && !c.experts_renormalised);
    assert_true(c.qk_norm == BG_QK_NORM_FULL && !bg_norms_outputs(&c) && c.padding_token == 1);
    c = good(OLMOE(EXPERTS ",\"clip_qkv\":null,\"norm_topk_prob\":true,\"num_local_experts\":8"));
    assert_true(c.experts_renormalised);
    c = good(QWEN3_MOE(",\"num_local_experts\":4"));
    assert_true(c.n_experts == 4 && c.d_expert == 24 && c.d_ff == 176 && c.d_head == 16 && !c.experts_renormalised);
    assert_true(c.qk_norm == BG_QK_NORM_HEAD && c.max_positions == 128);
    c = good(
        QWEN3_MOE(",\"num_experts\":4,\"use_sliding_window\":true,\"sliding_window\":48,\"max_window_layers\":48"));
    assert_true(c.max_positions == 128 && bg_window_of(&c, 0) == 48 && bg_window_of(&c, 1) == 48);
    assert_int_equal(good(QWEN3_MOE(",\"num_experts\":4,\"use_sliding_window\":true")).window, 4096);
    assert_int_equal(good(QWEN3_MOE(",\"num_experts\":4,\"sliding_window\":48")).window, 0);
    assert_int_equal(good(LLAMA(EXPERTS)).n_experts, 0);

    assert_int_equal(plain(OLMOE(EXPERTS ",\"mlp_only_layers\":[0]")), 0);
    assert_int_equal(plain(QWEN3_MOE(",\"num_experts\":4,\"mlp_only_layers\":[1,1]")), 2);
    assert_int_equal(plain(QWEN3_MOE(",\"num_experts\":4,\"decoder_sparse_step\":2")), 1);
    assert_int_equal(plain(QWEN3_MOE(",\"num_experts\":4,\"decoder_sparse_step\":2,\"mlp_only_layers\":[1]")), 3);
    assert_int_equal(plain(LLAMA("")), 3);
}

static void refuses_experts(void **state)
{
    (void)state;
    bad(OLMOE(",\"num_experts\":8,\"num_experts_per_tok\":9"),
        "num_experts_per_tok 9 is more than the 8 of num_experts");
    bad(OLMOE(",\"num_experts\":8"), "key \"num_experts_per_tok\" is missing");
    bad(OLMOE(",\"num_experts_per_tok\":8"), "key \"num_experts\" is missing");
    bad(OLMOE(",\"num_experts\":0,\"num_experts_per_tok\":2"), "key \"num_experts\" is 0");
    bad(OLMOE(EXPERTS ",\"num_local_experts\":4"), "num_experts 8 and num_local_experts 4 contradict each other");
    bad(OLMOE(",\"num_experts\":2000,\"num_experts_per_tok\":2"), "num_experts is 2000, more than 1024");
    bad(OLMOE(EXPERTS ",\"clip_qkv\":8.0"), "clip_qkv is not supported");
    bad(RMS("qwen3_moe", KV EXPERTS), "key \"moe_intermediate_size\" is missing");
    bad(QWEN3_MOE(",\"num_experts\":4,\"mlp_only_layers\":[2]"), "entry 0 of mlp_only_layers is none of the 2 blocks");
    bad(QWEN3_MOE(",\"num_experts\":4,\"mlp_only_layers\":[0,-1]"),
        "entry 1 of mlp_only_layers is none of the 2 blocks");
    bad(QWEN3_MOE(",\"num_experts\":4,\"mlp_only_layers\":1"), "key \"mlp_only_layers\" is no list");
    bad("{\"model_type\":\"olmoe\",\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":1025,"
        "\"intermediate_size\":176,\"max_position_embeddings\":128,\"vocab_size\":300,\"rms_norm_eps\":1e-06" EXPERTS
        "}",
        "num_hidden_layers is 1025, more than 1024 with experts");
}

static void refuses_what_it_cannot_run(void **state)
{
    (void)state;
    bad("{\"model_type\":\"mamba\"}", "model_type \"mamba\" is not supported");
    bad("{\"model_type\":\"mamba\"}",
        "gpt2, gpt_neox, llama, mistral, qwen2, qwen3, qwen3_moe, olmoe, olmo2, starcoder2, gpt_neo, olmo, olmo3, smollm3, gemma2, gemma3_text, apertus");
    bad("{}", "key \"model_type\" is missing");
    bad("{\"model_type\":3}", "key \"model_type\" is not a string");
    bad("{\"model_type\":", "not valid JSON");
    bad("[]", "JSON object");
    bad(LLAMA(",\"vocab_size\":300"), "duplicate");
    bad(LLAMA(",\"quantization_config\":{\"bits\":4}"), "quantization_config is not supported");
    bad(GPT2(",\"scale_attn_by_inverse_layer_idx\":true"), "scale_attn_by_inverse_layer_idx = true is not supported");
    bad(GPT2(",\"scale_attn_weights\":false"), "scale_attn_weights = false is not supported");
    bad(GPT2(",\"reorder_and_upcast_attn\":true"), "reorder_and_upcast_attn = true");
    bad(GPT2(",\"add_cross_attention\":true"), "add_cross_attention = true");
    bad(GPT2(",\"is_causal\":false"), "is_causal = false is not supported");
    bad(LLAMA(",\"per_layer_config\":{\"1\":{\"num_attention_heads\":2}}"), "per_layer_config is not supported");
}

static void refuses_contradictions(void **state)
{
    (void)state;
    bad("{\"model_type\":\"llama\"}", "key \"hidden_size\" is missing");
    bad("{\"model_type\":\"gpt2\",\"n_embd\":64,\"n_head\":4}", "key \"n_layer\" is missing");
    bad("{\"model_type\":\"llama\"," SIZES "}", "key \"rms_norm_eps\" is missing");
    bad("{\"model_type\":\"llama\"," SIZES ",\"rms_norm_eps\":null}", "key \"rms_norm_eps\" is null");
    bad(RMS("mistral", ""), "key \"num_key_value_heads\" is missing");
    bad(RMS("qwen3", KV), "key \"head_dim\" is missing");
    bad("{\"model_type\":\"llama\"," SIZES ",\"rms_norm_eps\":1e300}",
        "key \"rms_norm_eps\" is 1e+300, not a positive");
    bad("{\"model_type\":\"llama\"," SIZES ",\"rms_norm_eps\":1e-50}", "key \"rms_norm_eps\" is 1e-50, not a positive");
    bad("{\"model_type\":\"gpt2\",\"n_embd\":64,\"n_head\":4,\"n_layer\":2147483647,\"n_positions\":32,"
        "\"vocab_size\":256,\"layer_norm_epsilon\":1e-05}",
        "key \"n_layer\" is 2147483647, more than 4096");
    bad(LLAMA(",\"num_key_value_heads\":3"), "num_attention_heads 4 is not a multiple of num_key_value_heads 3");
    bad(LLAMA(",\"num_key_value_heads\":0"), "key \"num_key_value_heads\" is 0");
    bad(LLAMA(",\"head_dim\":-16"), "key \"head_dim\" is -16");
    bad(LLAMA(",\"head_dim\":2000000000"), "more than 2^31 - 1 rows");
    bad(LLAMA(",\"head_dim\":99999999999"), "not within 1 .. 2^31 - 1");
    bad(LLAMA(",\"head_dim\":16.0"), "not a whole number");
    bad(LLAMA(",\"mlp_bias\":1"), "neither true nor false");
    bad(RMS("mistral", KV ",\"sliding_window\":0"), "key \"sliding_window\" is 0");
    bad("{\"model_type\":\"gpt2\",\"n_embd\":66,\"n_head\":4,\"n_layer\":3,\"n_positions\":32,"
        "\"vocab_size\":256,\"layer_norm_epsilon\":1e-05}",
        "n_embd 66 is not a multiple of n_head 4");

    bg_model_config c;
    bg_err err = { .msg = "" };
    unlink(file);
    assert_int_equal(bg_model_config_read(&c, folder, &err), BG_EIO);
    assert_non_null(strstr(err.msg, file));
}

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return 1;
    snprintf(file, sizeof file, "%s/config.json", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(file);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_gpt2),
        cmocka_unit_test(reads_gpt_neox),
        cmocka_unit_test(reads_llama),
        cmocka_unit_test(reads_other_llama_kin),
        cmocka_unit_test(reads_starcoder2),
        cmocka_unit_test(reads_windows),
        cmocka_unit_test(reads_odd_numbers),
        cmocka_unit_test(passes_over_other_spellings),
        cmocka_unit_test(reads_activations),
        cmocka_unit_test(scales_rope),
        cmocka_unit_test(computes_yarn),
        cmocka_unit_test(dynamic_is_plain),
        cmocka_unit_test(reads_gpt_neo),
        cmocka_unit_test(reads_olmo),
        cmocka_unit_test(reads_olmo3),
        cmocka_unit_test(reads_smollm3),
        cmocka_unit_test(reads_gemma),
        cmocka_unit_test(reads_apertus),
        cmocka_unit_test(refuses_rope),
        cmocka_unit_test(reads_what_training_needs),
        cmocka_unit_test(reads_experts),
        cmocka_unit_test(refuses_experts),
        cmocka_unit_test(refuses_what_it_cannot_run),
        cmocka_unit_test(refuses_contradictions),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
