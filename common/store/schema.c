/* The one table of what is in the files.  A "*" at the front of a path stands for any group:
 * a module's datasets, or none. */
#include <stdio.h>
#include <string.h>

#include "bregman/schema.h"

/* clang-format off */
#define ROW(format, path, dtype, n_dims, d0, d1, d2, domain, units, text) \
    { "bregman/" format, path, dtype, n_dims, { d0, d1, d2 }, domain, units, text, NULL }
#define D1(format, path, dtype, d0, domain, units, text) ROW(format, path, dtype, 1, d0, NULL, NULL, domain, units, text)
#define D2(format, path, dtype, d0, d1, domain, units, text) ROW(format, path, dtype, 2, d0, d1, NULL, domain, units, text)
#define D3(format, path, dtype, d0, d1, d2, domain, units, text) ROW(format, path, dtype, 3, d0, d1, d2, domain, units, text)
/* lengths of the rows of a ragged array, CF's contiguous ragged representation */
#define RAGGED(format, path, n_dims, d0, d1, sample, domain, units, text) \
    { "bregman/" format, path, BG_U32, n_dims, { d0, d1, NULL }, domain, units, text, sample }

#define COVARIANCE(format) \
    D2(format, "*/activation_covariance", BG_F32, "input", "input_block", BG_FINITE, "1", \
       "mean of a a^T over predicted positions, a the layer's input (with a last 1 where it has a bias)"), \
    D2(format, "*/gradient_covariance", BG_F32, "output", "output_block", BG_FINITE, "nats2", \
       "mean of d d^T over predicted positions, d the loss's gradient with respect to the layer's output")
#define EIGENBASIS(format) \
    D2(format, "*/activation_eigenvectors", BG_F32, "input", "input_block", BG_FINITE, "1", \
       "eigenvectors of the activation covariance, in columns of each diagonal block; of k blocks " \
       "(attribute blocks) row i holds its own block's row"), \
    D1(format, "*/activation_eigenvalues", BG_F64, "input", BG_FINITE, "1", \
       "eigenvalues of the activation covariance, ascending in each block, as computed"), \
    D2(format, "*/gradient_eigenvectors", BG_F32, "output", "output_block", BG_FINITE, "1", \
       "eigenvectors of the output-gradient covariance, in columns of each diagonal block"), \
    D1(format, "*/gradient_eigenvalues", BG_F64, "output", BG_FINITE, "nats2", \
       "eigenvalues of the output-gradient covariance, ascending in each block, as computed")

/* the same two sides of Shampoo's factors */
#define SHAMPOO(format) \
    D2(format, "*/right_covariance", BG_F32, "input", "input_block", BG_FINITE, "nats2", \
       "Shampoo: mean of G^T G over sequences, G the gradient of a whole sequence's loss with respect to the layer's " \
       "weights (and bias)"), \
    D2(format, "*/left_covariance", BG_F32, "output", "output_block", BG_FINITE, "nats2", \
       "Shampoo: mean of G G^T over sequences"), \
    D2(format, "*/right_eigenvectors", BG_F32, "input", "input_block", BG_FINITE, "1", \
       "eigenvectors of the right covariance, in columns of each diagonal block, as of activation_eigenvectors"), \
    D1(format, "*/right_eigenvalues", BG_F64, "input", BG_FINITE, "nats2", \
       "eigenvalues of the right covariance, ascending in each block, as computed"), \
    D2(format, "*/left_eigenvectors", BG_F32, "output", "output_block", BG_FINITE, "1", \
       "eigenvectors of the left covariance, in columns of each diagonal block"), \
    D1(format, "*/left_eigenvalues", BG_F64, "output", BG_FINITE, "nats2", \
       "eigenvalues of the left covariance, ascending in each block, as computed")

/* what an optimiser knows of each parameter, and what each step of a training was like */
#define TRAINING(format) \
    D1(format, "name", BG_STRING, "parameter", BG_NAMES, "1", "the parameter's tensor, as the model's files name it"), \
    RAGGED(format, "count", 1, "parameter", NULL, "number", BG_ANY, "1", "numbers of each parameter, row after row"), \
    D1(format, "first_moment", BG_F32, "number", BG_FINITE, "1", \
       "AdamW: decaying mean of the gradients; SGD: momentum; parameter after parameter"), \
    D1(format, "second_moment", BG_F32, "number", BG_NOT_NEGATIVE, "1", "AdamW: decaying mean of the gradients' squares"), \
    D1(format, "step/loss", BG_F64, "step", BG_FINITE, "nats", "mean loss of the step's predicted tokens, before its update"), \
    D1(format, "step/gradient_norm", BG_F64, "step", BG_FINITE, "nats", "norm of the mean loss's gradient, before clipping"), \
    D1(format, "step/rate", BG_F64, "step", BG_FINITE, "1", "learning rate"), \
    D1(format, "step/tokens", BG_I64, "step", BG_FROM_0, "tokens", "predicted tokens in the loss"), \
    D1(format, "step/heldout_loss", BG_F64, "step", BG_ANY, "nats", \
       "mean loss of the held-out files' predicted tokens after the step; NaN: not measured"), \
    D1(format, "step/seconds", BG_F64, "step", BG_NOT_NEGATIVE, "s", "what the step took, without measuring and saving")

#define RESIDUAL(format) \
    D2(format, "residual", BG_F64, "query", "iteration", BG_NOT_NEGATIVE, "1", \
       "norm of what the refined solve has left of the query's gradient after each step, over that before the first")

#define QUERY_LOSS(format, path) \
    D1(format, path, BG_F64, "query", BG_FINITE, "nats", \
       "summed loss of the query's completion, by the model that is traced: its log-probability, negated")

#define LOW_RANK(format) \
    D3(format, "*/left", BG_F32, "query", "output", "r", BG_FINITE, "nats", \
       "left factor U of the preconditioned query gradient U V^T, singular values included"), \
    D3(format, "*/right", BG_F32, "query", "input", "r", BG_FINITE, "1", \
       "right factor V of the preconditioned query gradient U V^T"), \
    D1(format, "*/kept", BG_F32, "query", BG_SHARE_KEPT, "1", \
       "1 less the truncation error's share of the expected score variance; below 0 where the error is larger"), \
    D1(format, "*/error", BG_F64, "query", BG_FINITE, "nats2", \
       "expected variance of the error that the truncation makes in the score of a training sequence"), \
    D1(format, "*/variance", BG_F64, "query", BG_FINITE, "nats2", \
       "expected variance of this module's part of the score of a training sequence"), \
    D1(format, "*/sampling", BG_F64, "query", BG_ANY, "nats2", \
       "expected variance of the error in that from lambda's being fitted on a sample: by lambda_half; NaN: not known")

/* the token files that sequences are numbered through, in their order */
#define CORPUS(format) \
    D1(format, "corpus/file", BG_STRING, "file", BG_ANY, "1", "token files, in the order that numbers their sequences, as they were named"), \
    D1(format, "corpus/hash", BG_STRING, "file", BG_ANY, "1", "identity of each token file, as in run/input_hash"), \
    D1(format, "corpus/sequences", BG_I64, "file", BG_FROM_0, "1", "sequences in each token file")

/* what tokens cover of a document's text */
#define CHARACTERS(group, axis) \
    D1("tokens", group "begin_character", BG_I64, axis, BG_FROM_0, "characters", \
       "first character, in Unicode code points, that the tokens cover of their document's text"), \
    D1("tokens", group "end_character", BG_I64, axis, BG_FROM_0, "characters", \
       "first character behind those that the tokens cover of their document's text")

/* where the sequences that a query's best or worst scores belong to come from */
#define DOCUMENTS(format, side) \
    D2(format, side "/document", BG_STRING, "query", "k", BG_ANY, "1", \
       "id of the document that the sequence was cut from; empty: not known"), \
    D2(format, side "/start", BG_I64, "query", "k", BG_FROM_0_OR_NONE, "tokens", \
       "first token of the sequence within its document; -1: not known"), \
    D2(format, side "/prefilter_rank", BG_I64, "query", "k", BG_FROM_0_OR_NONE, "1", \
       "the sequence's place among the query's best of the prefilter, from 1; -1: not among them; 0: not known")

/* the best or the worst k of each query with their explanation */
#define EXTREMES(side, which) \
    D2("ranking", side "/sequence", BG_I64, "query", "k", BG_SEQUENCE_OR_NONE, "1", \
       "global index of the sequences with the " which " scores, most extreme first; -1: none"), \
    D2("ranking", side "/score", BG_F32, "query", "k", BG_ANY, "nats", \
       "influence of those sequences on the query's log-probability; positive: training on it helps"), \
    DOCUMENTS("ranking", side), \
    D2("ranking", side "/score_error", BG_F32, "query", "k", BG_ANY, "nats", \
       "standard error of those scores, from truncation and the sample behind lambda; NaN: not known"), \
    RAGGED("ranking", side "/count", 2, "query", "k", "value", BG_ANY, "tokens", \
       "tokens with a score of their own in each of those sequences"), \
    D1("ranking", side "/token_score", BG_F32, "value", BG_FINITE, "nats", \
       "share of each position in the sequence's score, sequence after sequence; they add up to it"), \
    D1("ranking", side "/output_token_score", BG_F32, "value", BG_FINITE, "nats", \
       "how the loss of the token after each position moves along the query: another way to share out the score"), \
    D1("ranking", side "/input_token_score", BG_F32, "value", BG_FINITE, "nats", \
       "what the score loses when the embedding of the token at each position is 0; they do not add up to it"), \
    D2("ranking", side "/layer_token_score", BG_F32, "value", "layer", BG_FINITE, "nats", \
       "share of each position and layer in the sequence's score")

static const bg_schema_row rows[] = {
    /* "*": in every file that was written with a provenance */
    D1("*", "run/input_name", BG_STRING, "input_file", BG_ANY, "1", "files this one was made from"),
    D1("*", "run/input_hash", BG_STRING, "input_file", BG_ANY, "1", "identity of each input: XXH3-128 of its fingerprint, or of its content, hexadecimal"),

    D1("tokens", "token", BG_U32, "token", BG_ANY, "1", "token ids of all sequences, back to back"),
    RAGGED("tokens", "count", 1, "sequence", NULL, "token", BG_SEQUENCE_LENGTH, "tokens", "tokens in each sequence"),
    D1("tokens", "loss", BG_U8, "token", BG_ANY, "1", "0: the token is not in the loss when it is predicted; without this dataset all are"),
    D1("tokens", "document", BG_I64, "sequence", BG_DOCUMENT, "1", "row of /documents that the sequence was cut from"),
    D1("tokens", "start", BG_I64, "sequence", BG_FROM_0, "tokens", "first token of the sequence within its document"),
    CHARACTERS("", "sequence"),
    /* with documents put end to end: a piece is what a sequence has of one document */
    RAGGED("tokens", "piece/count", 1, "sequence", NULL, "piece", BG_ANY, "1", "pieces of documents in each sequence"),
    D1("tokens", "piece/document", BG_I64, "piece", BG_DOCUMENT, "1", "row of /documents that the piece was cut from"),
    D1("tokens", "piece/start", BG_I64, "piece", BG_FROM_0, "tokens", "first token of the piece within its document"),
    D1("tokens", "piece/length", BG_U32, "piece", BG_ANY, "tokens", "tokens of the piece"),
    CHARACTERS("piece/", "piece"),
    D1("tokens", "documents/id", BG_STRING, "document", BG_ANY, "1", "the document's id in the input"),
    D1("tokens", "documents/source", BG_STRING, "document", BG_ANY, "1", "where the document comes from, as the input says"),
    D1("tokens", "documents/lang", BG_STRING, "document", BG_ANY, "1", "language of the document, as the input says"),

    D1("queries", "token", BG_U32, "token", BG_ANY, "1", "token ids of all queries, prompt and completion, back to back"),
    RAGGED("queries", "count", 1, "query", NULL, "token", BG_SEQUENCE_LENGTH, "tokens", "tokens in each query"),
    D1("queries", "loss", BG_U8, "token", BG_ANY, "1", "0: the token of the completion is not in the loss; without this dataset all are"),
    D1("queries", "completion_start", BG_U32, "query", BG_FROM_0, "tokens", "first token of the completion within its query"),
    D1("queries", "id", BG_STRING, "query", BG_NAMES, "1", "the query's name"),
    /* of contrasts and groups: the texts that a query is made of, each of which reads only itself */
    RAGGED("queries", "piece/count", 1, "query", NULL, "piece", BG_ANY, "1", "texts that each query is made of"),
    D1("queries", "piece/length", BG_U32, "piece", BG_ANY, "tokens", "tokens of the text"),
    D1("queries", "piece/start", BG_U32, "piece", BG_FROM_0, "tokens", "first token of the completion within its text"),
    D1("queries", "piece/sign", BG_I64, "piece", BG_ANY, "1", "1: its log-probability is added to the query's, -1: subtracted"),
    D1("queries", "piece/id", BG_STRING, "piece", BG_ANY, "1", "id of the line that the text is from"),
    /* what the user knows of a query, for comparisons */
    D1("queries", "kind", BG_STRING, "query", BG_ANY, "1", "what sort of query it is, in the user's words; empty: not said"),
    RAGGED("queries", "related/count", 1, "query", NULL, "related", BG_ANY, "1", "related documents of each query"),
    D1("queries", "related/relation", BG_STRING, "related", BG_ANY, "1", "how the document is related to the query, in the user's words"),
    D1("queries", "related/document", BG_STRING, "related", BG_ANY, "1", "the document's id"),

    COVARIANCE("factors"),
    EIGENBASIS("factors"),
    SHAMPOO("factors"),
    D2("factors", "*/lambda", BG_F32, "output", "input", BG_NOT_NEGATIVE, "nats2",
       "mean over sequences of the squared gradient in the eigenbasis, before damping"),
    D2("factors", "*/lambda_half", BG_F32, "output", "input", BG_NOT_NEGATIVE, "nats2",
       "lambda of the first half of the sequences alone, for its sampling error; absent: they are too few"),
    D2("factors", "*/diagonal", BG_F32, "output", "input", BG_NOT_NEGATIVE, "nats2",
       "mean over sequences of the squared gradient: the diagonal Fisher, a baseline"),

    D1("compressed", "id", BG_STRING, "query", BG_NAMES, "1", "the query's name"),
    LOW_RANK("compressed"),
    RESIDUAL("compressed"),
    QUERY_LOSS("compressed", "query_loss"),

    D1("scores", "id", BG_STRING, "query", BG_NAMES, "1", "the query's name"),
    QUERY_LOSS("scores", "query_loss"),
    D1("scores", "sequence", BG_I64, "sequence", BG_SEQUENCE, "1", "global index into the token files, in their order"),
    D2("scores", "score", BG_F32, "sequence", "query", BG_FINITE, "nats",
       "influence of the sequence on the query's log-probability; positive: training on it helps"),
    D3("scores", "layer_score", BG_F32, "sequence", "query", "layer", BG_FINITE, "nats",
       "share of each layer in the score; they add up to it"),
    D1("scores", "gradient_norm", BG_F32, "sequence", BG_NOT_NEGATIVE, "nats", "norm of the sequence's gradient of the tracked weights"),
    D1("scores", "layer_name", BG_STRING, "layer", BG_NAMES, "1", "what each layer is: a block's number, \"embedding\" or \"head\""),
    D2("scores", "top/sequence", BG_I64, "query", "k", BG_SEQUENCE_OR_NONE, "1",
       "global index of the highest scores' sequences, best first"),
    D2("scores", "top/score", BG_F32, "query", "k", BG_ANY, "nats", "the highest scores, best first"),
    DOCUMENTS("scores", "top"),
    D2("scores", "bottom/sequence", BG_I64, "query", "k", BG_SEQUENCE_OR_NONE, "1",
       "global index of the lowest scores' sequences, worst first"),
    D2("scores", "bottom/score", BG_F32, "query", "k", BG_ANY, "nats", "the lowest scores, worst first"),
    DOCUMENTS("scores", "bottom"),
    CORPUS("scores"),

    TRAINING("training"),
    D1("bank", "query", BG_STRING, "query", BG_NAMES, "1", "the query's name"),
    D1("bank", "subset", BG_STRING, "subset", BG_ANY, "1", "what the models were trained on: files of --subset and --mask, empty: everything"),
    D1("bank", "seed", BG_I64, "seed", BG_FROM_0, "1", "seeds of initial values and order"),
    D3("bank", "query_loss", BG_F64, "subset", "seed", "query", BG_FINITE, "nats",
       "summed loss of the query's completion, by the model trained on that subset with that seed"),
    D2("bank", "heldout_loss", BG_F64, "subset", "seed", BG_FINITE, "nats", "mean loss of the held-out files' predicted tokens"),
    D2("bank", "training_loss", BG_F64, "subset", "seed", BG_FINITE, "nats", "mean loss of the last step"),
    RAGGED("bank", "member/count", 1, "subset", NULL, "member", BG_ANY, "1", "sequences of each subset"),
    D1("bank", "member/sequence", BG_I64, "member", BG_FROM_0, "1", "global index of the sequences of each subset"),
    D1("candidates", "sequence", BG_I64, "sequence", BG_ANY, "1", "numbers of the sequences to score, in any order"),
    D1("candidates", "query", BG_STRING, "query", BG_NAMES, "1", "the query's name"),
    D2("candidates", "top/sequence", BG_I64, "query", "k", BG_SEQUENCE_OR_NONE, "1",
       "global index of the sequences that share most with the query, best first; -1: none"),
    D2("candidates", "top/score", BG_F64, "query", "k", BG_NOT_NEGATIVE, "1", "BM25 of those sequences; 0: none"),
    CORPUS("candidates"),

    D1("ranking", "query", BG_STRING, "query", BG_NAMES, "1", "the query's name"),
    QUERY_LOSS("ranking", "query_loss"),
    D1("ranking", "layer_name", BG_STRING, "layer", BG_NAMES, "1", "what each layer is: a block's number, \"embedding\" or \"head\""),
    EXTREMES("top", "highest"),
    EXTREMES("bottom", "lowest"),
    CORPUS("ranking"),
    D1("ranking", "error/truncation", BG_F64, "query", BG_ANY, "nats",
       "standard error from the truncation, in the score of a sequence whose gradient has the expected norm; NaN: not known"),
    D1("ranking", "error/sampling", BG_F64, "query", BG_ANY, "nats",
       "the same from the sample that lambda was fitted on, by half of it; NaN: not known"),
    D1("ranking", "error/agreement", BG_F64, "query", BG_ANY, "1",
       "share of the first `places` of the top that stay among them where all scores move by their errors, on average"),
    D1("ranking", "run/explain/input_name", BG_STRING, "explain_input", BG_ANY, "1", "files that the token scores were made from"),
    D1("ranking", "run/explain/input_hash", BG_STRING, "explain_input", BG_ANY, "1", "identity of each such file, as in input_hash"),
    D1("ranking", "moments/count", BG_I64, "query", BG_FROM_0, "1", "scores of the query"),
    D1("ranking", "moments/sum", BG_F64, "query", BG_FINITE, "nats", "sum of the scores"),
    D1("ranking", "moments/sum_positive", BG_F64, "query", BG_NOT_NEGATIVE, "nats", "sum of the scores above 0"),
    D1("ranking", "moments/mean", BG_F64, "query", BG_FINITE, "nats", "mean of the scores"),
    D1("ranking", "moments/sd", BG_F64, "query", BG_NOT_NEGATIVE, "nats", "standard deviation of the scores"),
    D1("ranking", "moments/minimum", BG_F64, "query", BG_FINITE, "nats", "lowest score"),
    D1("ranking", "moments/maximum", BG_F64, "query", BG_FINITE, "nats", "highest score"),
    D1("ranking", "histogram/edge", BG_F64, "edge", BG_FINITE, "nats", "edges of the histogram's bins, ascending"),
    D2("ranking", "histogram/count", BG_I64, "query", "bin", BG_FROM_0, "1", "scores in each bin, lower edge included"),
    RAGGED("ranking", "tail/count", 1, "query", NULL, "tail_value", BG_ANY, "1", "scores kept of each query's upper tail"),
    D1("ranking", "tail/score", BG_F32, "tail_value", BG_FINITE, "nats",
       "the largest scores of each query, descending, query after query"),

    /* rankings of the same queries and sequences side by side: by models, checkpoints or methods */
    D1("comparison", "model", BG_STRING, "model", BG_NAMES, "1",
       "what ranked: SIZE[@STEP][:METHOD], the last one \"bm25\", lexical overlap for comparison"),
    D1("comparison", "parameters", BG_F64, "model", BG_ANY, "1", "parameters of the model; NaN: not known"),
    D1("comparison", "query", BG_STRING, "query", BG_NAMES, "1", "the query's name"),
    D1("comparison", "kind", BG_STRING, "query", BG_ANY, "1", "what sort of query it is; empty: not said"),
    D2("comparison", "loss", BG_F64, "model", "query", BG_ANY, "nats", "the model's mean loss of the completion's tokens; NaN: not known"),
    D2("comparison", "count", BG_I64, "model", "query", BG_FROM_0, "1", "sequences that are compared: all models have scores of them"),
    D2("comparison", "mean", BG_F64, "model", "query", BG_FINITE, "nats", "mean of the scores"),
    D2("comparison", "sd", BG_F64, "model", "query", BG_NOT_NEGATIVE, "nats", "standard deviation of the scores"),
    D2("comparison", "top_percent", BG_F64, "model", "query", BG_ANY, "1",
       "share of all positive influence that the best 1 % of the sequences have; NaN: there is none"),
    D3("comparison", "top/sequence", BG_I64, "model", "query", "k", BG_SEQUENCE_OR_NONE, "1",
       "global index of the sequences with the highest scores, best first; -1: none"),
    D3("comparison", "top/score", BG_F64, "model", "query", "k", BG_ANY, "nats", "their scores; of \"bm25\" without unit"),
    D3("comparison", "top/overlap", BG_F64, "model", "query", "k", BG_ANY, "1",
       "share of the query's inverse document frequency, over all its n-grams, that is in n-grams the sequence has too; NaN: no sequence"),
    D3("comparison", "top/run", BG_I64, "model", "query", "k", BG_FROM_0, "tokens",
       "longest run of tokens that query and sequence have in common"),
    D3("comparison", "top/bm25_place", BG_I64, "model", "query", "k", BG_FROM_0_OR_NONE, "1",
       "the sequence's place by BM25 among those compared, from 1; -1: it shares no n-gram with the query"),
    D3("comparison", "top/sparsity", BG_F64, "model", "query", "k", BG_ANY, "1",
       "L2 norm of the sequence's token scores over their L1 norm; NaN: not explained"),
    D3("comparison", "tail", BG_F64, "model", "query", "tail_value", BG_ANY, "nats", "the largest scores, descending; NaN: there are fewer"),
    D3("comparison", "agreement/spearman", BG_F64, "model", "other", "query", BG_ANY, "1",
       "rank correlation of two models' scores, over the sequences that both have scored; NaN: one side is the same everywhere"),
    D3("comparison", "agreement/top", BG_F64, "model", "other", "query", BG_ANY, "1", "share of the first k that two models have in common"),
    /* a pair is a query and all documents that are related to it in one way */
    D1("comparison", "pair/query", BG_I64, "pair", BG_FROM_0, "1", "row of the query"),
    D1("comparison", "pair/relation", BG_STRING, "pair", BG_ANY, "1", "how the documents are related to the query, in the user's words"),
    D1("comparison", "pair/sequences", BG_I64, "pair", BG_FROM_0, "1", "sequences of these documents in the corpus"),
    D2("comparison", "pair/scored", BG_I64, "model", "pair", BG_FROM_0, "1", "those of them with a score; without one the values below are NaN"),
    D2("comparison", "pair/mean", BG_F64, "model", "pair", BG_ANY, "nats", "mean of their scores"),
    D2("comparison", "pair/z", BG_F64, "model", "pair", BG_ANY, "1", "the same less the mean of all scores, over their standard deviation"),
    D2("comparison", "pair/place", BG_F64, "model", "pair", BG_ANY, "1", "the best one's place among all, from 1"),
    D2("comparison", "pair/percentile", BG_F64, "model", "pair", BG_ANY, "1",
       "mean share of all other sequences that have less, where equal scores count half: 0.5 by chance"),
    D2("comparison", "pair/positive", BG_F64, "model", "pair", BG_ANY, "1", "their share of all positive influence"),
    D2("comparison", "pair/top", BG_F64, "model", "pair", BG_ANY, "1", "their share of the first k places"),
    RAGGED("comparison", "layer/count", 1, "model", NULL, "layer", BG_ANY, "1", "layers of each model"),
    D1("comparison", "layer/name", BG_STRING, "layer", BG_ANY, "1", "what each layer is: a block's number, \"embedding\" or \"head\""),
    D2("comparison", "layer/share", BG_F64, "layer", "query", BG_ANY, "1",
       "share of the layer in the scores of the first k sequences; a model's add up to 1; NaN: the scores add up to 0"),
    CORPUS("comparison"),

    D1("work", "*/activation_sum", BG_F32, "activation_value", BG_FINITE, "1", "sum of a a^T of one unit of work, in packed panels"),
    D1("work", "*/positions", BG_I64, "site", BG_FROM_0, "1", "predicted positions that are summed up"),
    D1("work", "*/gradient_sum", BG_F32, "gradient_value", BG_FINITE, "nats2", "sum of d d^T of one unit of work, in packed panels"),
    D1("work", "*/right_sum", BG_F32, "right_value", BG_FINITE, "nats2", "sum of G^T G of one unit of work, in packed panels"),
    D1("work", "*/left_sum", BG_F32, "left_value", BG_FINITE, "nats2", "sum of G G^T of one unit of work, in packed panels"),
    D2("work", "*/lambda_sum", BG_F32, "output", "input", BG_NOT_NEGATIVE, "nats2",
       "sum over the unit's sequences of the squared gradient in the eigenbasis"),
    D2("work", "*/diagonal_sum", BG_F32, "output", "input", BG_NOT_NEGATIVE, "nats2",
       "sum over the unit's sequences of the squared gradient"),
    QUERY_LOSS("work", "completion_loss"),
    D2("work", "query_loss", BG_F64, "training", "query", BG_FINITE, "nats", "summed loss of the query's completion"),
    D1("work", "heldout_loss", BG_F64, "training", BG_FINITE, "nats", "mean loss of the held-out files' predicted tokens"),
    D1("work", "training_loss", BG_F64, "training", BG_FINITE, "nats", "mean loss of the last step"),
    D1("work", "parameter_value", BG_F32, "number", BG_FINITE, "1", "the trained parameters, one after another"),
    TRAINING("work"),
    COVARIANCE("work"),
    EIGENBASIS("work"),
    SHAMPOO("work"),
    LOW_RANK("work"),
    RESIDUAL("work"),
    D1("work", "frequency", BG_I64, "term", BG_FROM_0, "1", "sequences of the unit that have each term of the queries"),
    D2("work", "top/sequence", BG_I64, "query", "k", BG_SEQUENCE_OR_NONE, "1",
       "global index of the unit's sequences that share most with the query, best first; -1: none"),
    D2("work", "top/score", BG_F64, "query", "k", BG_NOT_NEGATIVE, "1", "BM25 of those sequences; 0: none"),
    D1("work", "*/rank", BG_U32, "query", BG_ANY, "1", "columns of left and right that the query needs"),
    D2("work", "score", BG_F32, "sequence", "query", BG_FINITE, "nats", "influence of the sequence on the query"),
    D3("work", "layer_score", BG_F32, "sequence", "query", "layer", BG_FINITE, "nats", "share of each layer in the score"),
    D1("work", "gradient_norm", BG_F32, "sequence", BG_NOT_NEGATIVE, "nats", "norm of the sequence's gradient"),
    D2("work", "token_score", BG_F32, "value", "layer", BG_FINITE, "nats",
       "share of each position and layer in the score of the pairs of sequence and query that are ranked"),
    D1("work", "output_token_score", BG_F32, "value", BG_FINITE, "nats",
       "how the loss of the token after each position moves along the query, of the same pairs"),
    D1("work", "erased_score", BG_F32, "value", BG_FINITE, "nats",
       "score of a ranked sequence, whole or with the embedding of one token 0, for each query that ranks it"),
};
/* clang-format on */

const bg_schema_row *bg_schema_rows(size_t *n)
{
    *n = sizeof rows / sizeof rows[0];
    return rows;
}

static bool format_matches(const char *pattern, const char *format)
{
    return strcmp(pattern, "bregman/*") == 0 || strcmp(pattern, format) == 0;
}

/* "*" + "/left" matches "left" and "GROUP/left". */
static bool path_matches(const char *pattern, const char *path)
{
    if (pattern[0] != '*')
        return strcmp(pattern, path) == 0;
    const char *suffix = pattern + 1;
    size_t n = strlen(path), m = strlen(suffix);
    return strcmp(suffix + 1, path) == 0 || (n > m && strcmp(path + n - m, suffix) == 0);
}

const bg_schema_row *bg_schema_find(const char *format, const char *path)
{
    if (path[0] == '/')
        path++;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (format_matches(rows[i].format, format) && path_matches(rows[i].path, path))
            return &rows[i];
    return NULL;
}

/* Whole numbers that something is divided by, or that are counted to. */
static const struct {
    const char *format, *name;
    uint64_t least;
} attributes[] = {
    { "bregman/factors", "blocks", 1 },
    { "bregman/factors", "covariance_n_tokens", 1 },
    { "bregman/factors", "covariance_n_sequences", 1 },
    { "bregman/scores", "corpus_sequences", 1 },
    { "bregman/scores", "shards", 1 },
    { "bregman/ranking", "corpus_sequences", 1 },
    { "bregman/candidates", "corpus_sequences", 1 },
    { "bregman/comparison", "corpus_sequences", 1 },
};

uint64_t bg_schema_attribute_least(const char *format, const char *name)
{
    for (size_t i = 0; i < sizeof attributes / sizeof attributes[0]; i++)
        if (strcmp(attributes[i].format, format) == 0 && strcmp(attributes[i].name, name) == 0)
            return attributes[i].least;
    return 0;
}

static bool root_has_axis(const char *format, const char *axis)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!format_matches(rows[i].format, format) || rows[i].path[0] == '*' || strchr(rows[i].path, '/') != NULL)
            continue;
        for (int d = 0; d < rows[i].n_dims; d++)
            if (strcmp(rows[i].dim[d], axis) == 0)
                return true;
    }
    return false;
}

void bg_schema_axis_key(const char *format, const char *path, const char *axis, char key[BG_PATH_BYTES])
{
    bool of_file = strcmp(axis, "k") == 0 || root_has_axis(format, axis);
    const char *slash = of_file ? NULL : strrchr(path, '/');
    snprintf(key, BG_PATH_BYTES, "%.*s%s", slash != NULL ? (int)(slash + 1 - path) : 0, path, axis);
}
